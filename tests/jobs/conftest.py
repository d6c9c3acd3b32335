"""A tiny random model folder, two policies, and a job over them: real parts, built in a second."""

import pytest
from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

WORDS = ["the", "a", "user", "assistant", "system", "hello", "kill", "bank", "weather", "pin", *"0123456789"]


def pytest_configure(config):
    """Let Ray's processes outlive the objects that started them: it waits for none when it shuts down."""
    config.addinivalue_line("filterwarnings", "ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A two-layer random BERT with a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

    from csrm import CSRM, Calibration, Encoder, Layout
    from csrm.encoding import Limits

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", ":", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    sizes = {"max_conversation_tokens": 64, "max_clause_tokens": 32}
    encoder = Encoder(tokenizer, Limits(**sizes))
    backbone = AutoModel.from_config(config, add_pooling_layer=False)
    model = CSRM(backbone, encoder, Layout(width=16, **sizes), name="tiny")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(2.0)  # as initialised, all records would score nearly the same
    model.calibration = Calibration(scale=2.0, bias=-5.0)  # some p_safe on either side of a half
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def policies(tmp_path_factory):
    """A folder of two safety configurations, of two clauses and one."""
    folder = tmp_path_factory.mktemp("policies")
    (folder / "game.yaml").write_text(
        """
id: game
clauses:
- {category: violence, guideline: do not kill}
- {category: secrets, guideline: never ask for a pin}
"""
    )
    (folder / "bank.yaml").write_text(
        """
id: bank
clauses:
- {category: weather, guideline: do not talk of the weather}
"""
    )
    return folder


@pytest.fixture
def make_job(model_folder, policies, tmp_path):
    """Make a job that writes to `tmp_path / "out"`; options are `ScoreOptions`'s."""
    import csrm
    from jobs.job import Job, kept_schema, read_model_facts
    from jobs.options import ScoreOptions
    from jobs.storage import Folder

    def make(schemas=(None,), **options):
        paths = {
            "input": str(tmp_path / "in"),
            "configurations": str(policies),
            "output": str(tmp_path / "out"),
        }
        resolved = ScoreOptions(**paths | {"model": str(model_folder)} | options)
        return Job(
            options=resolved,
            configurations=tuple(csrm.load_configurations(policies)),
            model=read_model_facts(resolved.model),
            input_root=resolved.input,
            target=Folder.at(resolved.output),
            kept=kept_schema(schemas, resolved.keep_columns),
        )

    return make


@pytest.fixture(scope="session")
def running_cluster():
    """Local Ray, started once; commands join it."""
    from jobs.pipeline import cluster

    with cluster():
        yield


@pytest.fixture
def score(tmp_path, policies, model_folder):
    """Run `csrm score`; `"-"` stands for a good input file, and what is no URL lies in `tmp_path`."""
    from click.testing import CliRunner

    from jobs.cli import cli

    good = tmp_path / "good.jsonl"
    good.write_text('{"text": "hello bank"}\n{"text": "kill"}\n')

    def run(input_, *arguments, configurations=policies, output=tmp_path / "out", model=model_folder):
        location = str(good if input_ == "-" else input_ if "://" in str(input_) else tmp_path / input_)
        required = ["-c", str(configurations), "-o", str(output), "-m", str(model)]
        return CliRunner().invoke(cli, ["score", location, *required, *arguments])

    return run


@pytest.fixture
def in_process(monkeypatch):
    """Replace the pipeline by one that runs here; yields the function so that a test can wrap it."""
    import contextlib

    from in_process import write_in_process

    from jobs import pipeline

    monkeypatch.setattr(pipeline, "cluster", contextlib.nullcontext)
    monkeypatch.setattr(pipeline, "score_shards", write_in_process)
    return monkeypatch


@pytest.fixture(scope="session", params=["moto", "swift"])
def server(request, tmp_path_factory):
    """An S3 server with an empty `bucket`."""
    from s3_servers import moto_server, swift_server

    folder = tmp_path_factory.mktemp(request.param)
    with moto_server(folder / "log") if request.param == "moto" else swift_server(folder) as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def connect(server, monkeypatch, tmp_path):
    """Point this process at the server, or at a proxy before it, and no further: it has no other credentials."""
    import s3fs

    from jobs import remote

    def point(port=None, secret=server.secret):
        s3fs.S3FileSystem.clear_instance_cache()
        endpoint = f"http://127.0.0.1:{port}" if port else server.endpoint
        for name, value in server.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    point()
    yield point
    s3fs.S3FileSystem.clear_instance_cache()
