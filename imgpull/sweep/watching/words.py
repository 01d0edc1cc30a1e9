"""How durations, counts and what others wrote read on one line.

Hides rounding, plurals, and what a foreign text could do to a terminal.
"""

from imgpull import units


def printable(text: str) -> str:
    """A text without what a terminal would obey, line ends for instance."""
    return "".join(character if character.isprintable() else "?" for character in text)


def one_line(text: str) -> str:
    """A text on one line, words one space apart."""
    return printable(" ".join(text.split()))


def label(name: str, trial: int, attempt: int) -> str:
    """A trial as people tell it from others."""
    again = f", attempt {attempt}" if attempt > 1 else ""
    return f"{one_line(name)}  trial {trial}{again}"


def counted(number: int, what: str) -> str:
    """A number of things: "1 cell", "2 cells"."""
    return f"{number} {what}{'s' * (number != 1)}"


def clock(seconds: float) -> str:
    """How long something has run, in whole seconds: "3m12s"."""
    return units.format_duration(int(seconds))


def about(seconds: float) -> str:
    """A duration that is not known exactly, in no more figures than it deserves."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"about {round(seconds, -1):.0f} s"
    minutes = seconds / 60
    if minutes < 9.5:
        return f"about {minutes:.0f} min"
    if minutes < 57.5:
        return f"about {5 * round(minutes / 5)} min"
    hours, rest = divmod(10 * round(minutes / 10), 60)
    if hours < 10:
        return f"about {hours} h {rest} min" if rest else f"about {hours} h"
    hours = round(minutes / 60)
    return f"about {hours} h" if hours < 48 else f"about {round(hours / 24)} days"
