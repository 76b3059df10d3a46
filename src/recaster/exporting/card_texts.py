"""Sentences and lines of code of the model card that are the same for all models of a kind."""

from __future__ import annotations

from recaster.recipe.adversary import GENERATION
from recaster.recipe.evaluation import FACES
from recaster.recipe.words import WORDS

PIPELINES = {
    "text-classification": "text-classification",
    "image-classification": "image-classification",
    "object-detection": "object-detection",
    "image-generation": "unconditional-image-generation",
    "chat": "text-generation",
    "causal": "text-generation",
    "masked": "fill-mask",
    "translation": "translation",
}
"""What hubs call each workload."""
USES = {
    "text": "Gives a short text one of these labels: {labels}.",
    "image": "Gives a picture one of these labels: {labels}.",
    "faces": "Compares faces: vectors of one person are near, those of two are far. It knows no names.",
    GENERATION: "Makes new pictures like those of its data from noise, of a class where it is conditional.",
    "boxes": "Finds things with these labels in a picture, each with its box: {labels}.",
    "chat": "Answers the last turn of a conversation.",
    "pairs": "Translates a short text.",
    "trees": "Says of each word of a text on which word it depends, by which relation, its parts of speech, "
    "features and lemma, in CoNLL-U.",
    "corpus": "Foresees text like that of its data: a start for models of other tasks.",
    "words": "Gives words vectors that are near for words used alike, as a start for other models.",
}
UNITS = {FACES: "people", WORDS: "pairs of words"}
"""What the metrics are over, where that is not a record."""
FACE_LIMITS = (
    "Faces are biometric data. Enrol people who agreed to it, for the use they agreed to, and remove them "
    "when they ask. Not for watching people who do not know of it, for searching crowds or the net, nor for "
    "guessing origin, mood, health or character; and never as the only ground of a decision about a person. "
    "Error rates differ between groups of people and cameras: measure them on your own before use, and "
    "choose the threshold there."
)
GENERATION_LIMITS = (
    "Its pictures are made up: mark them as such wherever they go; do not show them as photographs, nor use "
    "them as evidence or to deceive. It repeats the faults and gaps of its data, and may come close to "
    "single training pictures: see `copied_fraction`. Distances hold for the named encoder and this number "
    "of pictures alone. The discriminator, counted among the parameters, travels beside it for further "
    "training and is no judge of what is real."
)


PICTURES = "  # (rows, channels, height, width), as preprocessing.json says"
ASKING = {
    "boxes": f"boxes = model.eval().detect(pictures, overlap=0.6, least_score=0.3, most=100){PICTURES}",
    "pairs": "tokens = modeling.write_beams(model.eval(), source, starts, beams=4, length_penalty=1.0, "
    'longest=told["longest"])  # source: tag, tokens, end; starts: tags, which config.json has',
    "chat": "tokens = model.eval().generate(prompt, attention_mask=mask, max_new_tokens=48)  # prompt: of "
    "the chat template in tokenizer_config.json, up to where a reply begins; mask: 1 for each token",
    "corpus": "logits = model.eval()(tokens)  # of what follows each; model.generate writes",
    GENERATION: f"pictures = model.eval()(noise, classes){PICTURES}; noise is standard normal, "
    "classes are None without labels",
}
"""How a model of its own code is asked, where a plain call gives what only training wants."""


PARSING = [
    "import json, os, safetensors.torch, tokenizers, modeling  # the folder's file: it imports torch alone",
    'names = ("config", "vocabulary", "preprocessing")',
    'told, words, about = (json.load(open(f"{name}.json")) for name in names)',
    'cut = tokenizers.Tokenizer.from_file("tokenizer.json") if os.path.exists("tokenizer.json") else None',
    "pieces = (lambda form: cut.encode(form, add_special_tokens=False).ids) if cut else None",
    'parser = modeling.assemble(told["arguments"], words, about, pieces=pieces)',
    'parser.model.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
    'parser.segmenter.load_state_dict(safetensors.torch.load_file("segmenter.safetensors"))',
    'print(parser.parse("A text, or sentences in CoNLL-U."))',
]
WORDS_CODE = [
    "import json, safetensors.torch, modeling  # the folder's own file, which imports torch alone",
    'told = json.load(open("config.json"))',
    'table = modeling.build_model(**told["arguments"])',
    'table.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
    'lexicon = modeling.Lexicon(table, json.load(open("vocabulary.json")))',
    'vector, known = lexicon.embed("a text")',
    "near = lexicon.nearest(vector, 10)  # or vectors.txt of `recaster export --format word2vec`, for gensim",
]
WORD_LIMITS = (
    "Vectors repeat what their corpus says, its prejudices too: do not decide about people by them. A word "
    "has one vector, whatever its senses, and rare words have poor ones. Correlations with judgements are "
    "over pairs of known words: read them with the coverage."
)
