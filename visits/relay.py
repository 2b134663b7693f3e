"""What of a visitor's own words may be read out to the resident, in the doorman's voice.

Names and companies are short facts (`visits/facts.py`); this is the one place where whole sentences cross.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from visits.consent import Reading, classify
from visits.consent_words import LIGHT
from visits.facts import clean_sentence
from visits.words import Word, fold, is_latin, visible, words

MAX_ANSWER = 400
"""An answer longer than that, in characters, is no answer: nothing of it is passed on."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class Relayed:
    """What of a visitor's answer may be read out to the resident.

    Attributes:
        text: the answer, or as much of it as may cross; empty where nothing may.
        withheld: why something was held back, for the record: `keypad`, `coaching`, `office`, `announcement`,
            `address`, `instruction`, `script`, `too_long`, `permission`; empty where nothing was.
    """

    text: str
    withheld: str = ""


def relay(text: str) -> Relayed:
    """What may cross of a visitor's answer to the resident's question. Total: never raises.

    It is spoken in the doorman's voice, so nothing crosses that could make the resident act ("tecle um"), put
    the resident's answer into the doorman's mouth ("diga sim") or speak for the house or an office ("aqui é a
    portaria"): of such an answer nothing crosses at all. Clauses that would permit the entry if the telephone
    gave them back ("pode abrir") are left out, the rest of the answer crosses.
    """
    seen = visible(text)
    if len(seen) > MAX_ANSWER:
        return Relayed("", "too_long")
    if any(char.isalpha() and not is_latin(char) for char in seen):
        return Relayed("", "script")
    answer = clean_sentence(seen)
    whole = _inspected(seen)
    for reason, pattern in _REFUSED.items():
        if pattern.search(whole) or (reason == "address" and _ADDRESS.search(fold(seen))):
            return Relayed("", reason)
    clauses = re.split(r"(?<=[.,;:!?…])\s+", answer)
    kept = [clause for clause in clauses if not _would_permit(clause)]
    if len(kept) == len(clauses) and not _would_permit(answer):
        return Relayed(answer)
    # A mere yes that the permission leaves behind says nothing.
    rest = " ".join(clause for clause in kept if not _is_bare(words(clause))).rstrip(" ,;:")
    return Relayed("" if _would_permit(rest) else rest, "permission")


def _inspected(text: str) -> str:
    """Folded words on one line, letters that were spelt out ("t e c l e") joined to words."""
    line = " ".join(word.text for word in words(text))
    return re.sub(r"\b(?:[^\W\d_] ){3,}[^\W\d_]\b", lambda spelt: spelt[0].replace(" ", ""), line)


_LONGEST_WINDOW = 6
"""In words: no permission to enter needs more to be read as one."""
_BARE = LIGHT | _set(
    """
    sim claro logico obvio ok okay oquei beleza tudo certo ta bom bem esta com certeza positivo afirmativo
    concordo aceito prazer e que obrigado obrigada brigado brigada muito valeu tchau problema sem nao tem
    """
)
"""Words of a mere yes, which may cross ("sim, é urgente"): what is said while it is read out never counts."""


def _is_bare(said: Sequence[Word]) -> bool:
    return all(word.text in _BARE for word in said)


def _would_permit(clause: str) -> bool:
    """Whether a part of it, heard alone, would be read as permission to enter."""
    said = words(clause)
    for first in range(len(said)):
        for end in range(first + 1, min(first + _LONGEST_WINDOW, len(said)) + 1):
            window = said[first:end]
            if _is_bare(window):
                continue
            if classify(clause[window[0].start : window[-1].end]) is Reading.CONSENT:
                return True
    return False


_YES = r"(?:sim|s|claro|ok|pode|autoriz\w+|liber[aeo]\w*|abr[aei]\w*|permit\w+|um|1)"
_ACT = (
    r"(?:sim|autoriz\w+|liber[aeo]\w*|abr[aei]\w*|permit\w+|aceitar|confirm\w+|entra\w*|emergencia|socorro)"
)
_KEY = r"(?:um|uma|hum|dois|duas|tres|zero|estrela|[0-9])"
_TOUCH = (
    r"(?:toc(?:a|ar|ando)|toque|escolh(?:a|e|er)|selecion(?:a|e|ar)|acion(?:a|e|ar)|marc(?:a|ar)|marque"
    r"|coloc(?:a|ar)|coloque|ponha|poe|us(?:a|e|ar)|mand(?:a|e|ar)|bat(?:a|e|er))"
)
_PRESSED = r"(?:um|dois|zero|nove|cinco|[0-9])"
_OFFICE = (
    r"(?:portaria|porteir[oa]|guarita|condominio|administra\w+|sub?sindic[oa]|sindic[oa]|zelador[a]?|policia\w*"
    r"|delegad[oa]|delegacia|bombeiros?|defesa civil|prefeitura|justica|seguranca|vigilante|monitoramento)"
)
_REFUSED = {
    "keypad": re.compile(
        r"\b(?:tecl(?:e|a|as|ar|em|ado)|apert(?:e|a|ar|em)|digit(?:e|a|ar|em)|dis(?:que|ca|car|quem)"
        r"|pression(?:e|a|ar|em)|cli(?:que|ca|car)|botao|asterisco|cerquilha|sustenido|jogo da velha"
        r"|(?:tecl|apert|digit|disc|pression|clic)ando"
        rf"|{_TOUCH}(?: \w+){{0,2}} (?:no|o) {_PRESSED}|{_PRESSED} no (?:telefone|aparelho|celular|interfone)"
        rf"|{_PRESSED} (?:confirma|autoriza|libera|abre|aceita|recebe)"
        rf"|(?:para|pra) \w+(?: \w+){{0,3}} e (?:no|o) {_PRESSED}|o {_PRESSED} e (?:para|pra)"
        rf"|(?:opcao|tecla|numero) {_KEY}|{_KEY} (?:para|pra|e|igual a?) {_ACT}"
        rf"|(?:para|pra) {_ACT}(?: \w+){{0,3}} (?:e|no|o|aperta|marca) (?:o )?{_KEY})\b"
    ),
    "coaching": re.compile(
        r"\b(?:dig[ao]m?|diz|dizer|fale|fala|falar|respond[aeo]r?|confirm[ae]r?|repit[ao]|repet[ei]r?|grit[ae]r?"
        rf"|basta|so um|apenas um)(?: \w+){{0,5}} {_YES}\b"
    ),
    "office": re.compile(
        rf"\b(?:(?:aqui|sou|somos|fala|falando|quem fala)(?: \w+){{0,4}} {_OFFICE}"
        rf"|e (?:a |o |da |do |um |uma )?{_OFFICE}"
        rf"|^(?:a |o |da |do )?{_OFFICE}(?: aqui| falando| informa| avisa| comunica|$)"
        rf"|(?:a|o|da|do) {_OFFICE}(?: \w+)?(?: ja)? (?:autoriz|liber|mand|permit|deix|pede|pedi|orden)\w*"
        r"|(?:atencao|prezad[oa]s?|senhor(?:a|es|as)?|caro|cara|sr|sra)"
        r" (?:morador(?:a|es|as)?|condomin[oa]s?)"
        r")\b"
    ),
    "announcement": re.compile(
        r"\b(?:atencao|comunicado|mensagem automatica|gravacao|aviso (?:do|da|a|ao|importante|urgente)"
        r"|(?:entrada|acesso|visita|portao)(?: (?:esta|foi|ja|ta|e))*"
        r" (?:autorizad|liberad|permitid|abert)[oa])\b"
    ),
    "address": re.compile(r"\b(?:https?|www|ponto (?:com|br|net|org)|arroba|barra barra)\b"),
    "instruction": re.compile(
        r"\b(?:ignor[ae]r?|desconsider[ae]r?|esquec[ae]r?|esqueca|instruc(?:ao|oes)|prompt|system|assistant"
        r"|authorize|authorise|entry|function|tool|deny|open the|gate|porteiro virtual"
        r"|inteligencia artificial)\b"
    ),
}
"""Of an answer in which one of these is found nothing crosses."""
_ADDRESS = re.compile(r"://|@|\w\.(?:com|br|net|org|io|link|app|site|me)\b")
