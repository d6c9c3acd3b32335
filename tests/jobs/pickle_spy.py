"""Run a command line of csrm, and note every byte that its process pickles for Ray.

python pickle_spy.py FILE ARGUMENT...
"""

import sys
from pathlib import Path


def spy(log: Path) -> None:
    """Append all that Ray pickles in this process to a file, what goes beside the pickle too."""
    import ray.cloudpickle
    from ray.cloudpickle import cloudpickle

    original = cloudpickle.dumps

    def dumps(value, protocol=None, buffer_callback=None):
        def note(buffer):
            with log.open("ab") as file:
                file.write(buffer.raw())
            return buffer_callback(buffer)

        data = original(value, protocol, buffer_callback and note)
        with log.open("ab") as file:
            file.write(data)
        return data

    ray.cloudpickle.dumps = cloudpickle.dumps = dumps


if __name__ == "__main__":
    spy(Path(sys.argv[1]))
    from jobs.cli import cli

    cli(sys.argv[2:], prog_name="csrm")
