"""Drive a target by coverage: `python tests/fuzz/fuzz.py TARGET [-max_total_time=60 | -runs=N | any libFuzzer option]`.

Needs atheris. Ends at the first input that a target does not take, which libFuzzer writes to the working folder as
crash-*, timeout-* or oom-*; give its path as the last argument to run it again.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris
from seeds import DICTIONARY, SEEDS

LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]


def main():
    """Run the target that the command line names, in a process of its own: libFuzzer leaves without tidying up."""
    if len(sys.argv) < 2 or sys.argv[1] not in SEEDS:
        sys.exit(f"{__doc__}\nTargets: {', '.join(SEEDS)}")
    if "CSRM_FUZZ_FOLDER" in os.environ:
        fuzz(Path(os.environ["CSRM_FUZZ_FOLDER"]), *sys.argv[1:])
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="csrm-fuzz-", dir=memory) as folder:
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=os.environ | {"CSRM_FUZZ_FOLDER": folder}).returncode)


def fuzz(folder, name, *options):
    with atheris.instrument_imports(include=["csrm", "jobs", "yaml", "fuzz_targets"]):
        import fuzz_targets
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    words.write_text("".join('"%s"\n' % word.replace('"', '\\"') for word in DICTIONARY[name]))  # noqa: UP031
    is_replay = any(Path(option).is_file() for option in options)
    arguments = [*LIMITS, f"-dict={words}", *options, *([] if is_replay else [str(corpus)])]
    atheris.Setup([sys.argv[0], *arguments], fuzz_targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
