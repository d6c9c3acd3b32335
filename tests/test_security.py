"""What is never done with files of strangers: no pickle is loaded, no code in them run, no YAML tag obeyed."""

import ast
import builtins
import contextlib
import json
import pickle
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig

from csrm import CSRM, CheckpointError, ConfigurationError, Encoder, Layout, load_configurations
from csrm.checkpoint import from_backbone, from_language_model

SOURCES = [*Path(__file__).parents[1].glob("csrm/**/*.py"), *Path(__file__).parents[1].glob("jobs/**/*.py")]
PICKLES_OF_OUR_OWN = {"jobs/train_data.py"}
"""Hands batches from one of its processes to another, through Ray's object store, in pickles that it made itself."""
LOADERS = {"from_pretrained", "from_config"}
EXECUTES = """
from pathlib import Path
Path({mark!r}).write_text("executed")
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
class Config(BertConfig):
    model_type = "hostile"
class Model(BertModel):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@cache
def calls(source):
    """Calls in a file, with the dotted name of what is called."""
    nodes = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    return [(dotted(node.func), node) for node in nodes if isinstance(node, ast.Call)]


def dotted(node):
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call, name):
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


def name_of(source):
    return source.relative_to(Path(__file__).parents[1]).as_posix()


def test_no_source_loads_what_can_execute():
    forbidden = {
        *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"),
        *(
            "yaml.load",
            "torch.load",
            "torch.save",
            "pickle.load",
            "joblib.load",
            "numpy.load",
            "np.load",
            "marshal.loads",
        ),
    }
    found = {f"{name_of(source)}: {name}" for source in SOURCES for name, _ in calls(source) if name in forbidden}
    assert not found
    pickling = {name_of(source) for source in SOURCES for name, _ in calls(source) if name == "pickle.loads"}
    assert pickling <= PICKLES_OF_OUR_OWN


def test_every_yaml_is_read_by_the_one_safe_loader():
    found = {(name_of(source), name) for source in SOURCES for name, _ in calls(source) if name.startswith("yaml.")}
    assert {source for source, name in found if "load" in name or "parse" in name} == {"csrm/safe_yaml.py"}
    from csrm import safe_yaml

    assert issubclass(safe_yaml._Loader, safe_yaml.yaml.CSafeLoader | safe_yaml.yaml.SafeLoader)


def test_no_source_trusts_code_of_a_model_folder():
    for source in SOURCES:
        assert "trust_remote_code=True" not in source.read_text(encoding="utf-8").replace(" ", "")
        for name, call in calls(source):
            library, _, method = name.rpartition(".")
            if method in LOADERS and library.startswith("Auto"):
                safe = keyword(call, "trust_remote_code") == "False" or any(
                    one.arg is None and ast.unparse(one.value) == "_LOADING" for one in call.keywords
                )
                assert safe, f"{name_of(source)}:{call.lineno}"
    from csrm.checkpoint import _LOADING

    assert (_LOADING["trust_remote_code"], _LOADING["use_safetensors"]) == (False, True)


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded model."""
    from csrm.model_folder import EMBEDDED_MODEL

    return Path(shutil.copytree(EMBEDDED_MODEL, tmp_path / "model"))


@pytest.fixture
def nobody_asked(monkeypatch):
    """Fail where a person is asked a question: some would answer yes."""

    def ask(prompt=""):
        raise AssertionError(f"asked: {prompt}")

    monkeypatch.setattr(builtins, "input", ask)


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.usefixtures("nobody_asked")
@pytest.mark.parametrize("model_type", ["bert", "hostile"])
def test_code_in_a_model_folder_is_not_run(folder, tmp_path, model_type):
    mark = tmp_path / "executed"
    (folder / "hostile.py").write_text(EXECUTES.format(mark=str(mark)))
    auto_map = {"AutoConfig": "hostile.Config", "AutoModel": "hostile.Model"}
    change(folder / "config.json", auto_map=auto_map, model_type=model_type)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["hostile.Tokenizer", "hostile.Tokenizer"]})
    if model_type == "bert":  # transformers knows the model and needs no code of the folder's
        assert CSRM.from_pretrained(folder).fingerprint
        return
    for load in (CSRM.from_pretrained, lambda path: from_backbone(path, Layout())):
        with pytest.raises(CheckpointError, match="brings code of its own, which is never run"):
            load(folder)
    assert not mark.exists()


@pytest.mark.usefixtures("nobody_asked")
def test_code_of_a_tokenizer_is_not_run(folder, tmp_path):
    mark = tmp_path / "executed"
    (folder / "hostile.py").write_text(EXECUTES.format(mark=str(mark)))
    auto_map = {"AutoTokenizer": ["hostile.Tokenizer", "hostile.Tokenizer"]}
    change(folder / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Tokenizer")
    with contextlib.suppress(CheckpointError):
        Encoder.from_pretrained(folder)
    assert not mark.exists()


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.write_text, (self.mark, "executed"))


def test_a_pickle_of_weights_is_never_loaded(folder, tmp_path):
    mark = tmp_path / "executed"
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "model.safetensors.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    assert CSRM.from_pretrained(folder).fingerprint
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        CSRM.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match="unreadable weights"):
        CSRM.from_pretrained(folder)
    assert not mark.exists()


@pytest.mark.parametrize("load", [from_backbone, from_language_model])
def test_a_backbone_in_pickles_is_refused(tmp_path, load):
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, is_decoder=True
    )
    config.save_pretrained(tmp_path)
    torch.save(AutoModel.from_config(config).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        load(tmp_path, Layout())


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "clauses: [!!python/object/apply:pathlib.Path.touch [{mark}]]\n"),
        (".yaml", "clauses:\n- !!python/object/new:os.system [touch {mark}]\n"),
        (".yaml", "clauses: !!python/name:os.system\n"),
        (".yaml", "id: !!python/module:os\nclauses: [a]\n"),
        (".yml", "%TAG ! tag:yaml.org,2002:python/\n---\nclauses: [!object/apply:os.system [touch {mark}]]\n"),
        (".md", "---\ntitle: !!python/object/apply:os.system [touch {mark}]\n---\n- do not lie\n"),
    ],
)
def test_yaml_that_would_make_objects_is_refused(tmp_path, suffix, text):
    mark, file = tmp_path / "executed", tmp_path / f"policy{suffix}"
    file.write_text(text.format(mark=mark))
    with pytest.raises(ConfigurationError, match=r"policy\.\w+: line \d: YAML tags \(!\) are refused"):
        load_configurations(file)
    assert not mark.exists()


def laughs(levels):
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"clauses: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(40), "anchors"),
        ("clauses: &a [*a]", "anchors"),
        ("clauses: " + "[" * 100_000, "nested more than 16 levels"),
        ("{a: " * 100_000, "nested more than 16 levels"),
        ("- " * 100_000, "nested more than 16 levels"),
        ("? " * 100_000, "nested more than 16 levels"),
        ("x" * (2**20 + 1), "larger than 1 MiB"),
        ("threshold: " + "9" * 100_000 + "\nclauses: [a]", "line 1: not valid YAML: a number of 100000 digits"),
        ("threshold: 1:" + "59:" * 300_000 + "1\nclauses: [a]", "line 1: not valid YAML: a number of"),
        ("threshold: 0." + "9" * 100_000 + "\nclauses: [a]", "line 1: not valid YAML: a number of"),
        ("id: 0x" + "f" * 10_000 + "\nclauses: [a]", "line 1: not valid YAML: a number of"),
        ("clauses: [a]\n? 0x" + "f" * 10_000 + "\n: b", "line 2: not valid YAML: a number of"),
        ("threshold: 0x" + "f" * 38 + "\nclauses: [a]", "must lie between 0 and 1"),
    ],
)
def test_yaml_bombs_are_refused_at_once(tmp_path, text, message):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message) as error:
        load_configurations(tmp_path)
    assert len(str(error.value)) < 1000
