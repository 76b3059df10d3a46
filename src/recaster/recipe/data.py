"""The recipe's data sections: which records, what each must look like, how they are divided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recaster.recipe.pairs import PairShape
from recaster.recipe.section import Fraction, Section, Seed
from recaster.recipe.trees import TreeShape
from recaster.recipe.words import WordsShape

KINDS = ("image", "boxes", "text", "chat", "corpus", "pairs", "trees", "words")
"""What a record can be; the section of `data` of that name describes it."""


SEPARATOR = "|"
"""Between the labels of a record that may have several."""


class ImageShape(Section):
    """What every picture of the data set must look like."""

    height: int = Field(ge=4, le=4096)
    """Pixels."""
    width: int = Field(ge=4, le=4096)
    """Pixels."""
    channels: Literal[1, 3]
    """1: grey; 3: red, green, blue."""
    minimum: float
    """Smallest legal pixel value."""
    maximum: float
    """Largest legal pixel value; pixels are scaled so that minimum..maximum becomes 0..1."""
    resize: Literal["refuse", "stretch", "crop", "pad"] = "refuse"
    """What is done with picture files of another size: refuse makes them broken records; stretch changes
    their proportions; crop keeps the middle; pad adds black borders."""

    @model_validator(mode="after")
    def _ordered(self) -> ImageShape:
        if self.minimum >= self.maximum:
            raise ValueError(f"minimum ({self.minimum}) must be below maximum ({self.maximum})")
        return self


class BoxShape(ImageShape):
    """What every picture with boxes must look like; boxes follow their picture when that is resized."""

    resize: Literal["refuse", "stretch", "pad"] = "refuse"
    """What is done with picture files of another size: refuse makes them broken records; stretch changes
    their proportions; pad adds black borders."""
    min_side: float = Field(default=2.0, gt=0)
    """Pixels, in the resized picture: a narrower box makes a broken record."""
    max_boxes: int = Field(default=100, ge=1, le=1000)
    """Of one picture; more make a broken record. A model finds as many at most."""


class TextShape(Section):
    """What every text of the data set must look like, and how much of it the model sees."""

    max_tokens: int = Field(ge=4, le=32768)
    """Longer texts are cut after so many tokens, special ones included; how many were is reported."""
    max_characters: int = Field(default=100_000, ge=1)
    """A longer text is a broken record."""


class ChatShape(Section):
    """What every conversation must look like, and how much of it the model sees."""

    max_tokens: int = Field(ge=16, le=32768)
    """Tokens of one training row; longer conversations are cut there, and how many were is reported."""
    max_characters: int = Field(default=1_000_000, ge=1)
    """A longer conversation is a broken record."""
    max_reply_tokens: int = Field(default=128, ge=1, le=8192)
    """Where the model stops writing a reply that does not end by itself."""
    packed: bool = False
    """Fill rows of the training split up with one conversation after another, none of which sees another:
    saves time where they are much shorter than `max_tokens`. Positions count from the row's begin."""
    preferences: bool = False
    """Learn which of two replies is better: each conversation ends with the assistant's message and has a
    worse one in its place, `rejected`; train.loss is preference. The earliest turns of a longer conversation
    are left out. Without it such data is learned as if it had the better replies alone."""


class CorpusShape(Section):
    """What every document of plain text must look like, and what is learned from it."""

    objective: Literal["causal", "masked"]
    """causal: each token from those before it, for models that write; masked: tokens that are hidden, from
    all around them, for encoders (Devlin et al. 2019)."""
    document: Literal["line", "paragraph", "file"] = "line"
    """What a document is in a .txt file: a line, the lines between blank ones, or all of them. Documents are
    divided among the splits whole."""
    max_tokens: int = Field(ge=8, le=32768)
    """Tokens of one training row, special ones included; a longer document becomes several rows."""
    max_characters: int = Field(default=1_000_000, ge=1)
    """A longer document is a broken record."""
    packed: bool = False
    """Fill rows up with one document after another, an end token between them. Saves time where documents
    are short; a document's tokens then see those of the one before, unless they are kept apart."""
    apart: bool = False
    """Of packed rows: a token sees its own document alone. Positions still count from the row's begin."""
    masked_fraction: float = Field(default=0.15, gt=0, lt=1)
    """How many of a row's tokens are hidden; at least one. Of the objective masked."""

    @model_validator(mode="after")
    def _options_apply(self) -> CorpusShape:
        if self.apart and not self.packed:
            raise ValueError("apart belongs to packed rows; remove it, or set packed: true")
        if self.objective == "causal" and "masked_fraction" in self.model_fields_set:
            raise ValueError("masked_fraction belongs to the objective masked; remove it")
        return self


class Subset(Section):
    """A part of a large data set."""

    per_label: int = Field(ge=1)
    """Records of each label, or all where there are fewer."""
    seed: Seed
    """Another seed takes others."""


class PublishedSplits(Section):
    """Splits that the data set's authors made: `data.source` then holds only what is left."""

    validation: str | None = None
    """Source of the records that training is watched on, of the same form as `data.source`."""
    test: str | None = None
    """Source of the records that are held out for the evaluation and the gate. Of word-embedding: lines of
    `word word score` and of four words, `a b c d` for a is to b as c is to d; a file is a set."""


class DataSection(Section):
    """Which data, under which licence, with which labels. One of `image`, `boxes`, `text`, `chat`,
    `corpus`, `pairs`, `trees` and `words` is there.
    """

    source: str = Field(min_length=1)
    """`builtin:digits`, a file or folder relative to the project, or `https://…#sha256=…`. Pictures: JSON
    lines, CSV, Parquet, a folder of pictures by label or a zip of one, CIFAR's own archive. Boxes: COCO
    JSON, VOC XML, YOLO text, JSON lines. Text: JSON lines, CSV, TSV, or lines of `LABEL text`. A corpus, of
    words too: these with a column `text`, .txt files, or a folder of such. Pairs: JSON lines, CSV or TSV
    with a column for each language, or files with a line for each text, as `train.*`, where the star stands
    for a language. Trees: CoNLL-U, or a folder of it. Of a .json file with texts under several names,
    `FILE.json#parts=train,oos_train` takes these, in an address after the checksum: `#sha256=…&parts=…`.
    CIFAR's archive has parts too: data_batch, test_batch."""
    published_splits: PublishedSplits = PublishedSplits()
    """Records of the others that equal one of these are left out of training."""
    subset: Subset | None = None
    """Take a part of `source`; published splits stay whole."""
    licence: str = Field(min_length=1)
    """Of the data, as an SPDX identifier where there is one; it stands on the model's card."""
    legal_basis: str | None = Field(default=None, min_length=8)
    """On what ground the data may be used, such as consent, by the law that asks for one; it stands on the
    model's card. Faces are not taken without."""
    labels: list[str] = Field(default_factory=list)
    """Every legal label, in the order of the model's outputs; none for data without labels."""
    out_of_scope: str | None = Field(default=None, min_length=1)
    """Of text-classification: the label of records to which none of `labels` applies. The model answers it to
    texts of which it is less sure than of nearly all that have a label: evaluate.false_reject_rate."""
    several_labels: bool = False
    """Whether a record may have several labels or none: `cat|dog` in a table or a folder's name, a list in
    JSON. The model answers each label by itself; train.loss is binary-cross-entropy."""
    image: ImageShape | None = None
    """What every picture must look like; another shape is a broken record."""
    boxes: BoxShape | None = None
    """What every picture with boxes must look like."""
    text: TextShape | None = None
    """What every text must look like."""
    chat: ChatShape | None = None
    """What every conversation must look like."""
    corpus: CorpusShape | None = None
    """What every document of plain text must look like."""
    pairs: PairShape | None = None
    """What every text and its translation must look like."""
    trees: TreeShape | None = None
    """What every sentence with a tree must look like."""
    words: WordsShape | None = None
    """What every document must look like of which the words get vectors."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _distinct(self) -> DataSection:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels repeat: {self.labels}")
        if self.out_of_scope in self.labels:
            raise ValueError(
                f"out_of_scope {self.out_of_scope!r} is among labels too; remove it from labels, or leave "
                "out_of_scope out: it is a label like others then"
            )
        if len(self.labels) == 1 and self.boxes is None and not self.several_labels:
            raise ValueError(f"one label, {self.labels[0]!r}, leaves nothing to tell apart")
        if self.several_labels and (odd := [label for label in self.labels if SEPARATOR in label]):
            raise ValueError(
                f"{SEPARATOR} stands between the labels of a record, and is in {odd[0]!r}; rename it"
            )
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> DataSection:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            told = ", ".join(given) or "none"
            raise ValueError(f"data needs exactly one of the sections {', '.join(KINDS)}, and has {told}")
        return self


class ContractSection(Section):
    """When a data set is refused; below these bounds, bad rows go to quarantine."""

    max_quarantined_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of records that may break the contract; above it the data set is refused."""
    min_rows: int = Field(default=100, ge=1)
    """Good records of the whole set."""
    min_rows_per_label: int = Field(default=10, ge=1)
    """Fewer would leave a split without the label."""
    max_label_ratio: float | None = Field(default=None, ge=1)
    """Records of the commonest label for each one of the rarest; above it the data set is refused."""
    blank_pictures: Literal["report", "quarantine"] = "report"
    """What becomes of pictures that are nearly black, white or of one grey; faces always leave."""
    personal_data: Literal["report", "quarantine"] = "report"
    """What becomes of texts with patterns of mail addresses, phone and card numbers: report counts them in
    the contract's report; quarantine leaves them out."""
    template_tokens: Literal["report", "quarantine"] = "quarantine"
    """What becomes of conversations with marks between turns in a message, such as <|im_end|> or [INST], of
    whichever model's template: a tokenizer would read the message as several turns."""


class SplitSection(Section):
    """How records are divided; duplicates of one record always stay on one side."""

    seed: Seed
    """Another seed divides the records otherwise."""
    validation: Fraction | None = None
    """Share of the good records (or people) training is watched on; not where its authors published them."""
    test: Fraction | None = None
    """Share of the good records (or people) that are held out; not where its authors published that split."""
    validation_identities: int | None = Field(default=None, ge=2)
    """Of face-recognition, in place of a share: people that training is watched on."""
    test_identities: int | None = Field(default=None, ge=2)
    """Likewise, people that are held out."""
    near_duplicate_distance: float = Field(default=0.06, ge=0, le=1)
    """Root mean square pixel difference (fraction of the range) under which two pictures are one. Texts
    are one when they differ in case, punctuation and spaces only."""

    @model_validator(mode="after")
    def _room_for_training(self) -> SplitSection:
        if (self.validation or 0) + (self.test or 0) >= 0.9:
            raise ValueError("validation and test together leave less than a tenth for training")
        return self
