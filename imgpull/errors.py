"""The error tree, by who must act. Every error carries what happened and one action that mends it.

ImgpullError(message, hint)      str() is "message\\n  hint"
├── ConfigError         the request is impossible               -> edit conf/ or the command line
├── RenderError         a template is wrong                     -> edit templates/
├── EngineUnavailable   nothing ran yet                         -> install, log in, pick another
├── EngineFailed        it ran and broke                        -> read the named log
├── ReportError         a report is missing or of unknown shape -> version, or wrong directory
├── LedgerError         a sweep's ledger takes no line          -> mend, `imgpull resume DIR`
└── TrackingError       the record is safe, MLflow is not       -> `imgpull log DIR` later

Numbers that would mislead are a verdict (results), never an exception.
"""


class ImgpullError(Exception):
    """Something a user can act on: `message` says what happened, `hint` the one thing to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        # One argument: pickle calls the class with `args`, then restores the attributes.
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(ImgpullError):
    """The request asks for something impossible: edit conf/ or the command line."""


class RenderError(ImgpullError):
    """A template is wrong: edit templates/."""


class EngineUnavailable(ImgpullError):
    """The engine cannot run here, and nothing ran yet."""


class EngineFailed(ImgpullError):
    """The engine ran and broke: the message ends with what it said last."""


class ReportError(ImgpullError):
    """A report or record is missing or of a shape that this version does not know."""


class LedgerError(ImgpullError):
    """A sweep's ledger cannot be read or written; the trials' directories still hold all."""


class TrackingError(ImgpullError):
    """MLflow did not take a result; the job's directory still holds it."""
