"""The cast of digits as a plain script: the same libraries and the same work, nothing around them.

No orchestrator, no step store, no resume: what a careful person would write in a morning. Run by
overhead.py: `python plain_cast.py FOLDER`; its ranks: `plain_cast.py --rank FOLDER`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SEED, EPOCHS, BATCH, RATE, DECAY, SMOOTHING = 7, 30, 64, 0.004, 0.02, 0.05
LABELS = [str(number) for number in range(10)]


def prepare(folder: Path) -> None:
    import great_expectations as gx
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    facts = pd.DataFrame({"id": [f"digit-{row:04d}" for row in range(len(digits.target))]})
    facts["label"] = digits.target.astype(str)
    facts["minimum"], facts["maximum"] = digits.images.min((1, 2)), digits.images.max((1, 2))
    pq.write_table(
        pa.table({"id": facts["id"], "label": facts["label"], "pixels": list(digits.data)}),
        folder / "raw.parquet",
    )
    expect = gx.expectations
    rules = [
        expect.ExpectColumnValuesToNotBeNull(column="id"),
        expect.ExpectColumnValuesToBeUnique(column="id"),
        expect.ExpectColumnValuesToBeInSet(column="label", value_set=LABELS),
        expect.ExpectColumnValuesToBeBetween(column="minimum", min_value=0),
        expect.ExpectColumnValuesToBeBetween(column="maximum", max_value=16),
    ]
    context = gx.get_context(mode="ephemeral")
    batch = (
        context.data_sources.add_pandas("facts")
        .add_dataframe_asset("records")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": facts})
    )
    if not batch.validate(gx.ExpectationSuite(name="records", expectations=rules)).success:
        raise SystemExit("the data breaks its contract")
    images = (digits.images[:, None] / 16.0).astype(np.float32)
    rest, test = train_test_split(
        np.arange(len(images)), test_size=0.2, stratify=digits.target, random_state=SEED
    )
    train, validation = train_test_split(
        rest, test_size=0.125, stratify=digits.target[rest], random_state=SEED
    )
    for name, rows in {"train": train, "validation": validation, "test": test}.items():
        np.save(folder / f"{name}.images.npy", images[rows])
        np.save(folder / f"{name}.labels.npy", digits.target[rows].astype(np.int64))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    add = [sys.executable, "-m", "dvc", "add", "-q", "raw.parquet", "train.images.npy", "test.images.npy"]
    subprocess.run(add, cwd=folder, check=True)


def train_rank(folder: Path) -> None:
    import os

    import torch
    import torch.distributed as dist
    from torch.nn import functional as F
    from torch.nn.parallel import DistributedDataParallel

    from recaster.models.small_cnn import build_model

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    images = torch.from_numpy(np.load(folder / "train.images.npy"))
    labels = torch.from_numpy(np.load(folder / "train.labels.npy"))
    held, answers = (
        torch.from_numpy(np.load(folder / f"validation.{part}.npy")) for part in ("images", "labels")
    )
    network = build_model(
        channels=1, height=8, width=8, classes=10, hidden=32, dropout=0.2, activation="relu"
    )
    model = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    random, log, step = np.random.default_rng(SEED), [], 0
    for _ in range(EPOCHS):
        order = random.permutation(len(images))
        for start in range(0, len(images), BATCH):
            rows = order[start : start + BATCH][rank::world]
            shifts = random.integers(0, 3, (len(rows), 2)).tolist()
            padded = F.pad(images[rows], [1] * 4)
            moved = torch.stack([padded[n, :, a : a + 8, b : b + 8] for n, (a, b) in enumerate(shifts)])
            loss = F.cross_entropy(model(moved), labels[rows], label_smoothing=SMOOTHING)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            log.append((step, float(mean) / world))
            if rank == 0 and step % 50 == 0:
                torch.save(
                    {"model": network.state_dict(), "optimizer": optimizer.state_dict()}, folder / "last.pt"
                )
        network.eval()
        with torch.no_grad():
            score = F.cross_entropy(network(held[rank::world]), answers[rank::world])
        dist.all_reduce(score)
        network.train()
    if rank == 0:
        from safetensors.torch import save_file

        save_file(network.state_dict(), folder / "model.safetensors")
        (folder / "log.json").write_text(json.dumps(log))
    dist.destroy_process_group()


def release(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from recaster.evaluation.metrics import class_table, classification_metrics, confusion_matrix, measure
    from recaster.evaluation.plots import plot_confusion, plot_reliability
    from recaster.models.small_cnn import build_model
    from recaster.recipe.evaluation import EvaluateSection

    network = build_model(
        channels=1, height=8, width=8, classes=10, hidden=32, dropout=0.2, activation="relu"
    )
    network.load_state_dict(load_file(folder / "model.safetensors"))
    network.eval()
    with torch.no_grad():
        guesses = network(torch.from_numpy(np.load(folder / "test.images.npy"))).softmax(1).double().numpy()
    targets = np.load(folder / "test.labels.npy")
    metrics = measure(guesses, targets, classification_metrics(EvaluateSection()), EvaluateSection())
    (folder / "metrics.json").write_text(json.dumps([metrics, class_table(guesses, targets, LABELS)]))
    plot_confusion(confusion_matrix(guesses, targets), LABELS, folder / "confusion.png")
    plot_reliability(guesses, targets, 15, folder / "reliability.png")
    _log(folder, {name: entry["value"] for name, entry in metrics.items()})


def _log(folder: Path, metrics: dict[str, float]) -> None:
    from mlflow.entities import Metric
    from mlflow.models import infer_signature

    import mlflow
    from recaster.serving import pyfunc_image

    artifact = folder / "artifact"
    artifact.mkdir()
    (folder / "model.safetensors").rename(artifact / "model.safetensors")
    source = Path(sys.modules["recaster.models.small_cnn"].__file__ or "")
    (artifact / "modeling.py").write_bytes(source.read_bytes())
    arguments = {"channels": 1, "height": 8, "width": 8, "classes": 10, "hidden": 32, "dropout": 0.2}
    (artifact / "config.json").write_text(json.dumps({"arguments": arguments, "labels": LABELS}))
    image = {"height": 8, "width": 8, "channels": 1, "minimum": 0.0, "maximum": 16.0}
    (artifact / "preprocessing.json").write_text(json.dumps(image))
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("digits", (folder / "artifacts").as_uri())
    client = mlflow.MlflowClient()
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_params({"epochs": EPOCHS, "batch": BATCH, "rate": RATE})
        moment = int(time.time() * 1000)
        history = [
            Metric("loss", loss, moment, step) for step, loss in json.loads((folder / "log.json").read_text())
        ]
        client.log_batch(run.info.run_id, metrics=history)
        mlflow.log_metrics(metrics)
        for name in ("confusion.png", "reliability.png", "metrics.json"):
            mlflow.log_artifact(str(folder / name))
        example = np.zeros((1, 8, 8, 1), np.float32)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=pyfunc_image.__file__,
            artifacts={"model": str(artifact)},
            signature=infer_signature(example),
            input_example=example,
            pip_requirements=["mlflow", "torch", "safetensors", "numpy", "pandas"],
        )
    version = mlflow.register_model(logged.model_uri, "digits")
    if metrics["accuracy"] >= 0.97:
        client.set_registered_model_alias("digits", "champion", version.version)


def main() -> None:
    if sys.argv[1] == "--rank":
        train_rank(Path(sys.argv[2]))
        return
    folder = Path(sys.argv[1])
    prepare(folder)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    subprocess.run([*launch, "--rank", str(folder)], check=True)
    release(folder)


if __name__ == "__main__":
    main()
