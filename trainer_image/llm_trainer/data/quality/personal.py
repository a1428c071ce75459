"""Personal data: e-mail addresses, public IP addresses and phone numbers become [EMAIL], [IP] and [PHONE].

Patterns are of bounded length, so that the time of any text grows with its length alone.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from llm_trainer.config import PersonalData
from llm_trainer.data.quality.text import Text, Verdict

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})"
EMAIL = re.compile(
    rf"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{{0,63}}@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}}(?![A-Za-z0-9])"
)
IP = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
    r"|(?<![\w:.])(?=[0-9A-Fa-f:]{0,39}:[0-9A-Fa-f:]{0,39}:)[0-9A-Fa-f]{1,4}(?::{1,2}[0-9A-Fa-f]{1,4}){2,7}(?![\w:])",
    re.ASCII,  # a kana beside a number is no part of it, though it is a letter to Unicode
)
PHONE = re.compile(
    r"(?<![\w+.-])(?:"
    r"\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}"  # with + and country code (E.164)
    r"|0\d{1,4}-\d{1,4}-\d{3,4}|0\d{1,4}\(\d{1,4}\)\d{4}|\(0\d{1,4}\) ?\d{1,4}-\d{4}|0[789]0\d{8}"  # Japan
    r"|(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}"  # North America
    r")(?![\w-])",
    re.ASCII,
)
_WIDE = str.maketrans("０１２３４５６７８９－＋（）＠．", "0123456789-+()@.")


def personal_data(settings: PersonalData, text: Text) -> Verdict:
    edits: dict[str, int] = {}
    changed = text.text
    if settings.emails:
        changed = _replace(EMAIL, changed, "[EMAIL]", "emails", edits)
    if settings.ip_addresses:
        changed = _replace(IP, changed, "[IP]", "ipAddresses", edits)
    if settings.phone_numbers:
        changed = _replace(PHONE, changed, "[PHONE]", "phoneNumbers", edits)
    return Verdict(text=changed if edits else None, edits=edits)


def _replace(pattern: re.Pattern[str], text: str, placeholder: str, kind: str, edits: dict[str, int]) -> str:
    """Full-width digits and signs, as in Japanese, count as their ASCII forms; what isn't replaced stays as it is."""
    seen = text if text.isascii() else text.translate(_WIDE)  # as long as the text
    parts: list[str] = []
    end = 0
    for match in pattern.finditer(seen):
        if _is_meant(kind, match.group()):
            parts += [text[end : match.start()], placeholder]
            end = match.end()
            edits[kind] = edits.get(kind, 0) + 1
    return "".join([*parts, text[end:]]) if parts else text


def _is_meant(kind: str, found: str) -> bool:
    if kind == "ipAddresses":
        try:
            return ip_address(found).is_global
        except ValueError:
            return False
    return kind != "phoneNumbers" or 9 <= sum(map(str.isdigit, found)) <= 15
