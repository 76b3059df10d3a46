"""A whole cast by verb: snapshot, validate, prepare, train, evaluate, register, promote.

Each verb is a step: a pure function of references to references, found again by its fingerprint.
Works from a notebook without Prefect:

    cast = open_cast(Path("recipes/digits.yaml"))
    raw = snapshot(cast, SilentReporter())
"""

from recaster.pipeline.base_verbs import fetch_cast_base
from recaster.pipeline.check import check, foresee
from recaster.pipeline.data_verbs import prepare, snapshot, validate, version_data
from recaster.pipeline.finished import find_finished
from recaster.pipeline.model_verbs import evaluate, export, train
from recaster.pipeline.new_recipe import new_recipe
from recaster.pipeline.open_cast import Cast, check_services, hold_model, import_libraries, open_cast
from recaster.pipeline.production import open_voice, predict, promote_by_hand, roll_back_champion
from recaster.pipeline.release_verbs import promote, register, version_artifact
from recaster.pipeline.sample_verb import sample
from recaster.pipeline.search import find_search, search, search_trials
from recaster.pipeline.search_summary import SearchSummary
from recaster.pipeline.search_trial import TrialJob, TrialOutcome, run_trial
from recaster.pipeline.sequence import VERBS, run, run_to
from recaster.pipeline.summary import CastSummary, StepSummary, history, status, summarize

__all__ = [
    "VERBS",
    "Cast",
    "CastSummary",
    "SearchSummary",
    "StepSummary",
    "TrialJob",
    "TrialOutcome",
    "check",
    "check_services",
    "evaluate",
    "export",
    "fetch_cast_base",
    "find_finished",
    "find_search",
    "foresee",
    "history",
    "hold_model",
    "import_libraries",
    "new_recipe",
    "open_cast",
    "open_voice",
    "predict",
    "prepare",
    "promote",
    "promote_by_hand",
    "register",
    "roll_back_champion",
    "run",
    "run_to",
    "run_trial",
    "sample",
    "search",
    "search_trials",
    "snapshot",
    "status",
    "summarize",
    "train",
    "validate",
    "version_artifact",
    "version_data",
]
