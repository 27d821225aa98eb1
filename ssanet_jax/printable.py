"""Text that appears on a terminal, whatever characters it has."""

import re

# Terminals obey control characters, bidirectional marks reorder a line, and lone surrogates (bytes of a file name that
# are not UTF-8) cannot be written.
_UNPRINTABLE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]')


def printable(text: str, keep: str = '') -> str:
    r"""Escapes characters that would not appear on a terminal, such as '\x1b'.

    Args:
      text: any text.
      keep: control characters that stay, such as line breaks.
    """
    return _UNPRINTABLE.sub(
        lambda match: match[0] if match[0] in keep else match[0].encode('unicode_escape').decode(), text
    )


def one_line(error: object) -> str:
    """The text of an error in one line, printable."""
    return printable(re.sub(r'\s*[\r\n]\s*', ' ', str(error)).strip())
