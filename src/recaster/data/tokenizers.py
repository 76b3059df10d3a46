"""Tokenizers as files of the tokenizers library: taken from a base model, or trained here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaster.core.errors import DataError, RecipeError
from recaster.core.files import read_json, write_json

_FILLING = ("[PAD]", "<pad>", "</s>", "<|endoftext|>")
"""Padding and end tokens as tokenizers without a configuration beside them call these."""
_USUAL = {"mask_token": ("[MASK]", "<mask>"), "sep_token": ("[SEP]", "</s>"), "unk_token": ("[UNK]", "<unk>")}
"""Likewise by their keys."""
_MOST_UNKNOWN = 0.4
"""Of words of which no letter is known it is 0.5 where spaces are tokens too."""
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """Text to token numbers, special ones included, of any length."""

    _inner: Any
    _names: dict[str, str]
    padding: int
    size: int
    """Of the vocabulary."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens, not cut."""
        ids: list[int] = self._inner.encode(text).ids
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """The text's tokens without special ones around them."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def show(self, token: int) -> str:
        """What people see of a token; nothing of a special one."""
        text: str = self._inner.decode([token])
        return text

    def decode(self, tokens: list[int]) -> str:
        """The text of `tokens`, special ones left out."""
        text: str = self._inner.decode(tokens)
        return text

    def names(self, tokens: Sequence[int]) -> list[str]:
        """Each token as people read it, special ones too."""
        return [self._inner.decode([token], skip_special_tokens=False).strip() for token in tokens]

    def number_of(self, token: str) -> int | None:
        """The number of a token by its name."""
        number: int | None = self._inner.token_to_id(token)
        return number

    def named(self, key: str) -> int | None:
        """The number of a special token by its key in tokenizer_config.json, such as `mask_token`."""
        names = [self._names.get(key), *_USUAL.get(key, ())]
        numbers = (self._inner.token_to_id(name) for name in names if name)
        return next((number for number in numbers if number is not None), None)

    def truncate(self, tokens: list[int], longest: int) -> list[int]:
        """At most `longest` tokens; the closing special ones stay."""
        if len(tokens) <= longest:
            return tokens
        closing = self._inner.num_special_tokens_to_add(is_pair=False) > 1
        return [*tokens[: longest - 1], tokens[-1]] if closing else tokens[:longest]


def measure_unknown(tokens: Sequence[int], unknown: int | None, *, split: str) -> float:
    """The share of `tokens`, special ones left out, that the tokenizer has for all that it does not know.

    Raises:
        DataError: it is so large that nothing could be learned.
    """
    share = tokens.count(unknown) / len(tokens) if tokens and unknown is not None else 0.0
    if share > _MOST_UNKNOWN:
        raise DataError(
            "The tokenizer does not know these texts.",
            where=f"split {split}",
            value=f"{share:.0%} of the tokens are unknown to it",
            repair="use a base that was trained on these languages, or a scratch: model, whose tokens are "
            "found in the data",
        )
    return share


def find_unknown(file: Path) -> int | None:
    """The token that stands for what the tokenizer in a tokenizer.json cannot write, if any."""
    model: dict[str, Any] = read_json(file)["model"]
    vocabulary: Any = model["vocab"]
    unigram = isinstance(vocabulary, list)  # of pieces, and the token is said by its place
    found: int | None = model.get("unk_id") if unigram else vocabulary.get(model.get("unk_token"))
    return found


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder.

    Raises:
        RecipeError: it has none that is read without code of its own.
    """
    from tokenizers import Tokenizer as Inner

    file = folder / "tokenizer.json"
    if not file.exists():
        raise RecipeError(
            "The base model has no tokenizer.json.",
            where="model.base",
            value=str(folder),
            repair="save it once with transformers' AutoTokenizer(...).save_pretrained, which writes one",
        )
    inner = Inner.from_file(str(file))
    inner.no_padding()
    inner.no_truncation()
    names = _special_names(folder)
    return Tokenizer(
        _inner=inner, _names=names, padding=_padding(folder, names, inner), size=inner.get_vocab_size()
    )


def _special_names(folder: Path) -> dict[str, str]:
    """Special tokens by their keys in tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    told = read_json(file) if file.exists() else {}
    entries = {key: value for key, value in told.items() if key.endswith("_token")}
    named = {
        key: entry.get("content") if isinstance(entry, dict) else entry for key, entry in entries.items()
    }
    return {key: name for key, name in named.items() if isinstance(name, str)}


def _padding(folder: Path, names: dict[str, str], inner: Any) -> int:
    """The padding token's number; of a tokenizer without one, its end token's."""
    for name in (names.get("pad_token"), names.get("eos_token"), *_FILLING):
        if name and (number := inner.token_to_id(name)) is not None:
            return int(number)
    raise RecipeError(
        "The tokenizer names no padding token.",
        where="model.base",
        value=str(folder / "tokenizer_config.json"),
        repair="add pad_token there",
    )


_SIDES = ("<pad>", "<unk>", "</s>")
_TURN = ("[PAD]", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, as SmolLM2 and Qwen have it."""


def train_byte_pairs(texts: Sequence[str], *, vocabulary: int, folder: Path, keep_case: bool = False) -> None:
    """Train a byte-level BPE tokenizer on `texts`; write it as a model's folder has it.

    The same texts give the same tokenizer. (WordPiece's trainer numbers its tokens in the order of a
    hash table, another one in each process.)

    Args:
        vocabulary: the most tokens it may have, 256 bytes and five special ones among them.
        keep_case: of letters; else all become small ones.
    """
    from tokenizers import normalizers

    changes = [normalizers.NFKC(), *([] if keep_case else [normalizers.Lowercase()])]
    normalizer = normalizers.Sequence(changes)
    inner = _train(texts, vocabulary=vocabulary, special=_SPECIAL, normalizer=normalizer, prefix_space=True)
    _save_framed(inner, folder)


def train_classifier_tokens(
    texts: Sequence[str], *, kind: str, framed: bool, vocabulary: int, folder: Path
) -> None:
    """Train a tokenizer of small letters for a text classifier.

    The same texts give the same one; of unigram alike but for the order of letters that make no piece, which
    the library's trainer numbers as its hash table has them.

    Args:
        kind: byte-pairs (byte-level), unigram (pieces of words), words (and marks) or characters.
        framed: a text becomes `[CLS]`, its tokens and `[SEP]`, as encoders want it; byte-pairs always are.
        vocabulary: the most tokens it may have, five special ones among them.
    """
    if kind == "byte-pairs":
        train_byte_pairs(texts, vocabulary=vocabulary, folder=folder)
        return
    if kind == "unigram":
        inner = _train_unigram(
            texts,
            vocabulary=vocabulary,
            special=_SPECIAL,
            unknown=_SPECIAL[1],
            normalizer=_small_letters(),
        )
    else:
        inner = _count_tokens(
            texts, vocabulary=vocabulary, splitter=_split_words if kind == "words" else _split_characters
        )
    if framed:
        _save_framed(inner, folder)
        return
    _save(inner, folder, {"pad_token": "[PAD]", "unk_token": "[UNK]"})


def _save_framed(inner: Any, folder: Path) -> None:
    from tokenizers import processors

    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, inner.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    keys = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    _save(inner, folder, dict(zip(keys, _SPECIAL, strict=True)))


def _small_letters() -> Any:
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def _split_words() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Whitespace()


def _split_characters() -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")


def _count_tokens(texts: Sequence[str], *, vocabulary: int, splitter: Callable[[], Any]) -> Any:
    """The most frequent parts of `texts`; what is rarer is unknown."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import models

    normalizer, parts = _small_letters(), splitter()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(part for part, _ in parts.pre_tokenize_str(normalizer.normalize_str(text)))
    # The library's own trainer numbers parts that are equally frequent in another order each time.
    ranked = sorted(counts, key=lambda part: (-counts[part], part))[: vocabulary - len(_SPECIAL)]
    numbers = {part: number for number, part in enumerate((*_SPECIAL, *ranked))}
    inner = Inner(models.WordLevel(numbers, unk_token="[UNK]"))  # noqa: S106 - no password
    inner.normalizer, inner.pre_tokenizer = normalizer, parts
    return inner


def train_chat_byte_pairs(texts: Sequence[str], *, vocabulary: int, folder: Path) -> None:
    """Train a byte-level BPE tokenizer with the ChatML template and its tokens; as `train_byte_pairs`."""
    inner = _train(texts, vocabulary=vocabulary, special=_TURN, normalizer=None, prefix_space=False)
    names = {"pad_token": "[PAD]", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    _save(inner, folder, {**names, "chat_template": _CHAT_TEMPLATE})


def train_joint(
    texts: Sequence[str], *, vocabulary: int, kind: str, tags: Sequence[str], folder: Path
) -> None:
    """Train one tokenizer for several languages on `texts`; as `train_byte_pairs`, but no letter is changed.

    A text becomes the first of `tags`, its tokens, and the token that ends it: what translates another
    language puts that one's tag in place of the first.

    Args:
        kind: byte-pairs, which knows every text, or unigram, which knows the letters of `texts`.
        tags: special tokens, such as `<en>`.
    """
    from tokenizers import normalizers, processors

    special = (*_SIDES, *tags)
    if kind == "unigram":
        inner = _train_unigram(
            texts,
            vocabulary=vocabulary,
            special=special,
            unknown=_SIDES[1],
            normalizer=normalizers.NFC(),
        )
    else:
        normalizer = normalizers.NFC()
        inner = _train(
            texts, vocabulary=vocabulary, special=special, normalizer=normalizer, prefix_space=True
        )
    end = _SIDES[2]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{tags[0]} $A {end}",
        special_tokens=[(name, inner.token_to_id(name)) for name in (tags[0], end)],
    )
    _save(inner, folder, {"pad_token": _SIDES[0], "unk_token": _SIDES[1], "eos_token": end})


def _train_unigram(
    texts: Sequence[str], *, vocabulary: int, special: Sequence[str], unknown: str, normalizer: Any
) -> Any:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = Inner(models.Unigram())
    inner.normalizer = normalizer
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return inner


def _train(
    texts: Sequence[str], *, vocabulary: int, special: Sequence[str], normalizer: Any, prefix_space: bool
) -> Any:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = Inner(models.BPE())
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return inner


def _save(inner: Any, folder: Path, told: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    inner.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **told})
