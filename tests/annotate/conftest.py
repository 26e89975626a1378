from __future__ import annotations

import pytest

from cavendish.annotate.annotators.saliency import Saliency, U2NetSaliency, subject_mask
from cavendish.annotate.labels.quality import Mask
from tests.annotate.photographs import photo


class Annotated:
    """The model's results on the real photographs, each computed once for all tests."""

    def __init__(self) -> None:
        self.model = U2NetSaliency()
        self.model.load()
        self._results: dict[str, Saliency] = {}

    def saliency(self, name: str) -> Saliency:
        if name not in self._results:
            (result,) = self.model.annotate([photo(name)])
            assert isinstance(result, Saliency)
            self._results[name] = result
        return self._results[name]

    def mask(self, name: str) -> Mask:
        return subject_mask(self.saliency(name).probability)


@pytest.fixture(scope="session")
def annotated() -> Annotated:
    return Annotated()
