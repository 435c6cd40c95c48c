"""Names of languages: from what clients and users write to one spelling, and which of several fits best."""

import re
from collections.abc import Collection

#: Longest tag that is looked at, in characters: what RFC 5646, section 4.4.1, asks implementations to take.
MAX_TAG = 35
#: How much of an ``Accept-Language`` is read, in characters and in ranges; browsers send a handful.
MAX_HEADER, MAX_RANGES = 1024, 32

# Language, extended language, script, region (RFC 5646, section 2.1); what follows tells no catalog from another.
# The underscore, and what follows a dot or an at sign, are the way of POSIX, which folders of catalogs are named in.
_TAG = re.compile(
    r"([a-z]{2,3})(?:[-_]([a-z]{3}))?(?:[-_]([a-z]{4}))?(?:[-_]([a-z]{2}|[0-9]{3}))?(?:[-_.@][-_.@a-z0-9]*)?",
    re.IGNORECASE | re.ASCII,
)
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]*)?|1(?:\.0*)?)\s*", re.IGNORECASE | re.ASCII)

#: Chinese is written in two scripts, and its readers say by the region which one they mean.
_TRADITIONAL = frozenset({"TW", "HK", "MO"})
#: Regions that go without saying once the script is said.
_UNSAID_REGIONS = frozenset({("zh", "Hans", "CN"), ("zh", "Hant", "TW")})


def canonical(tag: object) -> str | None:
    """The tag in one spelling, or ``None`` for what is none: ``de_at`` is ``de-AT``, ``zh-TW`` is ``zh-Hant``.

    Of a tag, language, script and region are kept. For Chinese the script is added, and left out are the regions that
    it implies: ``zh``, ``zh-CN`` and ``zh-Hans-CN`` are ``zh-Hans``, ``zh-HK`` is ``zh-Hant-HK``.
    """
    if not isinstance(tag, str) or len(tag) > MAX_TAG or (match := _TAG.fullmatch(tag.strip())) is None:
        return None
    language, extended, script, region = (part or "" for part in match.groups())
    language, script, region = language.lower(), script.title(), region.upper()
    if language == "cmn" or (language == "zh" and extended.lower() == "cmn"):
        language = "zh"
    if language == "zh":
        script = script or ("Hant" if region in _TRADITIONAL else "Hans")
        if (language, script, region) in _UNSAID_REGIONS:
            region = ""
    return "-".join(part for part in (language, script, region) if part)


def widened(tag: str) -> list[str]:
    """A canonical tag, then what it is a kind of: ``["de-AT", "de"]``. Never a language in another script.

    That is the lookup of RFC 4647, section 3.4, but for Chinese, where it ends with the script.
    """
    parts = tag.split("-")
    shortest = 2 if parts[0] == "zh" else 1
    return ["-".join(parts[:count]) for count in range(len(parts), shortest - 1, -1)]


def best_match(wanted: object, available: Collection[str]) -> str | None:
    """Which of the ``available`` tags, all of them canonical, serves who wants this one; ``None`` if none does.

    The tag itself, else the nearest that it is a kind of, else the first that is a kind of it: who wants ``pt`` is
    served by ``pt-BR``.
    """
    tag = canonical(wanted)
    if tag is None:
        return None
    for wider in widened(tag):
        if wider in available:
            return wider
    return next((other for other in available if other.startswith(f"{tag}-")), None)


def accepted(header: str) -> list[str]:
    """The ranges of an ``Accept-Language``, the most wanted first; ``*`` may be one (RFC 9110, section 12.5.4).

    What has the weight 0 is left out, and so is what is malformed or too much.
    """
    if len(header) > MAX_HEADER:
        header = header[:MAX_HEADER].rpartition(",")[0]
    found: list[tuple[float, str]] = []
    for part in header.split(",")[:MAX_RANGES]:
        tag, weighted, weight = part.partition(";")
        match = _QUALITY.fullmatch(weight) if weighted else None
        quality = float(match[1]) if match is not None else 0.0 if weighted else 1.0
        if quality and (tag := tag.strip()):
            found.append((-quality, tag))
    found.sort(key=lambda item: item[0])
    return [tag for _, tag in found]
