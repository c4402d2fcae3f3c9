"""Which language is a page in? By what its archive says, else by detection.

Detection is py3langid's (140 languages) or langdetect's (55; C4 used it), and needs the extra `languages`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
from collections import Counter
from collections.abc import Callable

from tf_llm.contracts import Document, Rejected, UserError
from tf_llm.languages import name_language

logger = logging.getLogger(__name__)

DETECTORS = ("py3langid", "langdetect")
# A detector is as sure after so many characters as it will ever be, and the whole of a long page takes it a second.
SAMPLE_CHARACTERS = {"py3langid": 2_000, "langdetect": 10_000}


@dataclasses.dataclass(frozen=True)
class Language:
    """The rule "language": keeps pages in admitted languages and labels them all.

    admitted: codes as `languages.name_language` gives them; none admits all.
    detector: one of `DETECTORS`, for pages that have no label.
    trust_labels: whether the first language that the archive names is believed.
    probability: below it, a language counts as not detected.

    Raises UserError where labels are not trusted and the detector is not installed. Where they are trusted, pages
    without one are then rejected, as "language: no label", and a warning says so.

    >>> rule = Language(("en",))
    >>> rule(Document("http://a.example/", "Tea?", ("eng",)), Counter())
    Document(url='http://a.example/', text='Tea?', languages=('en',))
    >>> rule(Document("http://a.example/", "¿Té?", ("spa",)), Counter())
    Rejected(url='http://a.example/', reason='language: not admitted', detail='es')
    """

    admitted: tuple[str, ...] = ()
    detector: str = "py3langid"
    trust_labels: bool = True
    probability: float = 0.5

    def __post_init__(self):
        try:
            require_detector(self.detector)
        except UserError as error:
            if not self.trust_labels:
                raise
            logger.warning("pages without a language label will be rejected: %s", error)

    def __call__(self, document: Document, edits: Counter[str]) -> Document | Rejected:
        """The document with its language in front; or it is rejected: "not admitted", "unclear", or "no label"."""
        labels = [code for code in map(name_language, document.languages) if code] if self.trust_labels else []
        if not labels:
            if not has_detector(self.detector):
                return Rejected(document.url, "language: no label")
            code, probability = load_detector(self.detector)(document.text)
            if code is None or probability < self.probability:
                return Rejected(document.url, "language: unclear", f"{code} at {probability:.2f}")
            edits["language: detected"] += 1
            labels = [code]
        if self.admitted and labels[0] not in self.admitted:
            return Rejected(document.url, "language: not admitted", labels[0])
        return dataclasses.replace(document, languages=tuple(dict.fromkeys(labels)))


def has_detector(name: str) -> bool:
    """Whether a detector is installed."""
    return importlib.util.find_spec(name) is not None


def require_detector(name: str) -> None:
    """Raises UserError where a detector is not installed."""
    if not has_detector(name):
        raise UserError(
            f"expected the package {name}, which detects languages. Received: it is not installed. Install it: "
            'pip install "tf_llm[languages]"'
        )


@functools.cache
def load_detector(name: str) -> Callable[[str], tuple[str | None, float]]:
    """A function from a text to its language, None where there is nothing to go by, and how probable it is."""
    return {"py3langid": _load_py3langid, "langdetect": _load_langdetect}[name]()


def _load_py3langid():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def detect(text: str) -> tuple[str | None, float]:
        code, probability = identifier.classify(text[: SAMPLE_CHARACTERS["py3langid"]])
        return (None if code in ("zxx", "und") else name_language(code)), probability  # zxx: no linguistic content

    return detect


def _load_langdetect():
    import langdetect

    def detect(text: str) -> tuple[str | None, float]:
        langdetect.DetectorFactory.seed = 0  # it draws at random which parts of a text it looks at
        try:
            best = langdetect.detect_langs(text[: SAMPLE_CHARACTERS["langdetect"]].encode("utf-8", "ignore").decode())[
                0
            ]
        except langdetect.LangDetectException:  # no letters
            return None, 0.0
        return name_language(best.lang), best.prob

    return detect
