"""The signals of an audit, in the order in which they see a record. A new one is a file beside this and a line here."""

from __future__ import annotations

from cavendish.mixing.audit.signals.embeddings import EmbeddingSignal
from cavendish.mixing.audit.signals.ids import IdSignal
from cavendish.mixing.audit.signals.images import ImageSignal
from cavendish.mixing.audit.signals.labels import LabelSignal
from cavendish.mixing.audit.signals.lineage import LineageSignal
from cavendish.mixing.audit.signals.signal import Signal
from cavendish.mixing.audit.signals.texts import TextSignal

SIGNALS: tuple[Signal, ...] = (
    LineageSignal(),
    TextSignal(),
    IdSignal(),
    ImageSignal(),
    EmbeddingSignal(),
    LabelSignal(),
)
METADATA_SIGNALS = tuple(signal for signal in SIGNALS if signal.from_metadata)
