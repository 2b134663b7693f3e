"""What a model is told in the caller's place, where its protocol has no other way to tell it anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """What the model is told in the caller's place, by the session's language."""

    note: str
    reply: str
    unheard: str
    again: str
    heard: str
    lost: str
    refused: str


_WORDS: Mapping[str, Words] = {
    "pt": Words(
        note="[Aviso do sistema, não é fala de quem está na linha] {text}",
        reply="[Aviso do sistema, não é fala de quem está na linha] {text}\nFale disso agora.",
        unheard="A pessoa não ouviu a sua última resposta.",
        again="A pessoa não ouviu a sua última resposta: repita o que ia dizer.",
        heard="A pessoa interrompeu você. Da sua última resposta ela só ouviu: «{text}»",
        lost="A ligação com você caiu e voltou. Continue a conversa de onde ela parou.",
        refused="Agora não: ninguém pediu resposta a você neste momento.",
    ),
    "es": Words(
        note="[Aviso del sistema, no lo dice quien está en la línea] {text}",
        reply="[Aviso del sistema, no lo dice quien está en la línea] {text}\nHabla de esto ahora.",
        unheard="La persona no oyó tu última respuesta.",
        again="La persona no oyó tu última respuesta: repite lo que ibas a decir.",
        heard="La persona te interrumpió. De tu última respuesta solo oyó: «{text}»",
        lost="La conexión contigo se cortó y volvió. Sigue la conversación donde quedó.",
        refused="Ahora no: nadie te pidió respuesta en este momento.",
    ),
    "en": Words(
        note="[System notice, not said by the person on the line] {text}",
        reply="[System notice, not said by the person on the line] {text}\nNow speak about it.",
        unheard="The person did not hear your last reply.",
        again="The person did not hear your last reply: say again what you were about to say.",
        heard="The person interrupted you. Of your last reply they heard only: «{text}»",
        lost="The connection to you broke and is back. Go on with the conversation where it stopped.",
        refused="Not now: nobody asked you for a reply at this moment.",
    ),
}


def words(language: str) -> Words:
    """The texts of a language; English for those that are not here."""
    return _WORDS.get(language, _WORDS["en"])


__all__ = ["Words", "words"]
