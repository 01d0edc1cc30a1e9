"""The Hydra entry point, nothing else: python run.py [-m] KEY=LEVEL[,LEVEL...] ..."""

import os
import sys
import traceback

import hydra
from omegaconf import DictConfig

from imgpull.config import schema

schema.register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Run one trial of one cell; the sweeper calls this for every one of them."""
    from imgpull.sweep import command

    command.run_task(config)


if __name__ == "__main__":
    # Hydra ends with 1, or lets its complaint through, when the request is wrong; a sweep of ours
    # ends with a status of its own.
    try:
        main()
    except SystemExit as end:
        if type(end) is SystemExit and end.code == 1:
            sys.exit(2)
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of Hydra's own words left: run.py --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(2)
