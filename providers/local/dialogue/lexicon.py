"""The words by which the engine knows what a visitor wants: errands, firms and what a sentence does.

Patterns are matched against folded text (lower case, no accents, see :func:`visits.words.fold`), in the
spellings that speech recognisers really produce ("Deixe-a pra lá", "ai food").
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final


class Act(StrEnum):
    """What a sentence does, beside the facts in it."""

    CANCEL = "cancel"
    ATTENDANT = "attendant"
    REPEAT = "repeat"
    SPEAK = "speak"
    """The visitor wants the floor: "espera, deixa eu falar"."""
    WAIT = "wait"
    GATE = "gate"
    """The visitor orders the gate open, or says who allowed it, or to live here."""
    WHY = "why"
    DONT_KNOW = "dont_know"
    WRONG = "wrong"
    YES = "yes"
    NO = "no"
    GREETING = "greeting"
    THANKS = "thanks"


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in patterns))


# ---- errands -----------------------------------------------------------------------------------------------

NAMED_ERRANDS: Final = {
    "visita": _any(r"visitas?", r"visitar", r"visitando", r"visitante", r"v[ie](?:m|o|io) ver"),
    "entrega": _any(
        r"entreg(?:a|as|ar|ador|adora|ando|uei)", r"encomendas?", r"pacotes?", r"deliver(?:y|i)"
    ),
    "servico": _any(
        r"servicos?", r"tecnic[oa]s?", r"consert(?:o|os|ar)", r"manutenc(?:ao|oes)", r"instalac(?:ao|oes)"
    ),
}  # fmt: skip
"""The errand itself is named, or as good as named."""

HINTED_ERRANDS: Final = {
    "entrega": _any(
        r"sedex", r"pizzas?", r"lanches?", r"marmitas?", r"marmitex", r"comida", r"pedido",
        r"super\s?mercado", r"mercado", r"farmacia", r"remedios?", r"moto\s?boy", r"flores", r"floricultura",
        r"galao", r"galoes", r"compras?", r"restaurante", r"caixa", r"envelope", r"trouxe",
        r"traz(?:er|endo)",
    ),
    "servico": _any(
        r"internet", r"encanador\w*", r"eletricista", r"diarista", r"faxin(?:a|eira|eiro|ar)", r"pedreir[oa]",
        r"pintor\w*", r"marceneir[oa]", r"montador\w*", r"montar", r"instalar", r"instalador\w*", r"mudanca",
        r"dedetiza\w+", r"jardineir[oa]", r"reparo", r"reparar", r"vistoria", r"arrumar", r"orcamento",
        r"assistencia", r"chaveir[oa]", r"cuidadora?", r"baba", r"enfermeir[oa]", r"medicao", r"trabalhar",
    ),
    "visita": _any(
        r"amig[oa]s?", r"parentes?", r"familiar", r"prim[oa]", r"convidad[oa]s?", r"aniversario", r"festa",
        r"almocar", r"jantar", r"churrasco", r"reuniao",
        r"sou (?:o |a )?(?:mae|pai|filh[oa]|irma|irmao|ti[oa]|avo|sobrinh[oa]|namorad[oa]|marido|espos[oa]"
        r"|noiv[oa]|sogr[oa]|cunhad[oa]|net[oa]|padrinho|madrinha)",
    ),
}  # fmt: skip
"""The errand may be guessed from what came or who came; a named errand outweighs it."""

NEGATED: Final = re.compile(
    r"\bnao (?:e|eh|era|foi|vim (?:para|pra|fazer))(?: (?:uma|um|a|o|de|para|pra))* $"
)
"""What stands before an errand that it is *not*."""

# ---- firms -------------------------------------------------------------------------------------------------

FIRMS: Final = {
    "Correios": _any(r"correios?", r"sedex"),
    "Mercado Livre": _any(r"mercado\s?livre"),
    "Amazon": _any(r"amazon", r"amazom"),
    "iFood": _any(r"i[\s-]?food", r"ai[\s-]?food", r"ai[\s-]?fudi?", r"e[\s-]?food", r"i[\s-]?fudi?"),
    "Rappi": _any(r"rapp?i"),
    "Shopee": _any(r"shop+e+", r"shop+i"),
    "Magalu": _any(r"magalu", r"magazine luiza"),
    "Loggi": _any(r"logg?i"),
    "Jadlog": _any(r"jad\s?log"),
    "Total Express": _any(r"total express"),
    "Shein": _any(r"shein"),
    "AliExpress": _any(r"ali\s?express"),
    "DHL": _any(r"dhl"),
    "FedEx": _any(r"fed\s?ex"),
    "Uber": _any(r"uber(?: eats| flash)?"),
    "Lalamove": _any(r"lalamove"),
    "Zé Delivery": _any(r"ze delivery"),
    "Drogasil": _any(r"drogasil"),
    "Droga Raia": _any(r"droga\s?raia"),
    "Americanas": _any(r"americanas"),
    "Casas Bahia": _any(r"casas bahia"),
    # These are also everyday words: only after a preposition that makes a firm of them.
    "Vivo": _any(r"d?a vivo", r"pela vivo"),
    "Claro": _any(r"d?a claro", r"pela claro"),
    "TIM": _any(r"d?a tim", r"pela tim"),
    "Oi": _any(r"da oi", r"pela oi"),
    "NET": _any(r"da net", r"pela net"),
    "Sky": _any(r"da sky", r"pela sky"),
    "Enel": _any(r"enel"),
    "Sabesp": _any(r"sabesp"),
    "Comgás": _any(r"comgas"),
    "Light": _any(r"da light", r"pela light"),
    "Copel": _any(r"copel"),
    "Cemig": _any(r"cemig"),
}
"""How a firm is written, and how it is heard."""

DELIVERS: Final = frozenset(FIRMS) - {
    "Vivo", "Claro", "TIM", "Oi", "NET", "Sky", "Enel", "Sabesp", "Comgás", "Light", "Copel", "Cemig",
}  # fmt: skip
"""Firms whose name alone means a delivery; the others' means a service."""

NAMED_FIRM: Final = re.compile(r"\bempresa ((?:[A-ZÀ-Ý][\w&'’-]*)(?: [A-ZÀ-Ý][\w&'’-]*){0,3})")
"""A firm named as one, in the sentence as written: "da empresa Rápido Sul"."""

# ---- what a sentence does ----------------------------------------------------------------------------------

_DONT_KNOW = (
    r"nao (?:sei|lembro|me lembro|faco ideia|tenho certeza|conheco)", r"sei la", r"esqueci", r"sem nome",
    r"nao (?:esta|ta|vem|veio|tem)(?: \w+){0,2} (?:escrito|informado|marcado|anotado|nome|numero)",
    r"nao (?:precisa|quero)(?: \w+){0,2} nome", r"nao (?:quero|posso|vou) (?:dizer|informar|dar)",
    r"prefiro nao",
    r"nao (?:diz|consta|aparece|informa(?:ram)?|fala|falaram|disseram|tenho|tem)",
)  # fmt: skip

ACTS: Final = {
    Act.CANCEL: _any(
        r"deix[ae][\s-](?:a |isso )?(?:pra|para) la", r"deixa quieto", r"esquece(?: isso)?", r"desist[oi]",
        r"nao (?:precisa|quero) mais", r"(?:vou|estou indo|to indo) embora", r"tchau",
        r"(?:volto|passo|venho)(?: \w+)? (?:depois|mais tarde|outr[ao] (?:hora|dia))", r"(?:foi|e) engano",
        r"apertei (?:errado|sem querer|por engano)", r"pode cancelar", r"cancela",
    ),
    Act.ATTENDANT: _any(
        r"(?:falar?|conversar|fale) com (?:o |a |um |uma |algum |alguma )*"
        r"(?:porteir[oa]|atendente|humano|pessoa|sindic[oa]|zelador\w*|alguem|seguranca)",
        r"(?:cham[ae]r?|passa(?:r)?|me passa|transf[ei]r\w*|quero|preciso de)"
        r"(?: \w+)? (?:o |a |um |uma |pra o |pro |para o )*(?:porteir[oa]|atendente|humano|zelador\w*)",
        r"(?:quero|preciso de|tem) (?:uma )?pessoa(?: de verdade| real)?$",
        r"^(?:o )?(?:porteir[oa]|atendente)(?: por favor)?$",
    ),
    Act.REPEAT: _any(
        r"repet(?:e|ir|iu|a|indo)", r"nao (?:entendi|ouvi|escutei)", r"fal(?:a|ar|e) (?:de novo|mais alto)",
        r"(?:o|u) que(?: foi)?(?: que)? (?:voce|ce) (?:disse|falou)", r"^(?:o que|como|hein|que)$",
    ),
    Act.SPEAK: _any(r"deixa? (?:eu|me) (?:falar|explicar|terminar)", r"(?:me )?escuta", r"posso falar"),
    Act.WAIT: _any(
        r"esper[ae]", r"calma", r"per(?:a|ai)", r"pera ai",
        r"(?:so )?(?:um|1) (?:momento|momentinho|instante|minuto|minutinho|segundo)", r"so um pouco",
    ),
    Act.GATE: _any(
        r"abr[aei]r?", r"abrindo", r"autoriz\w*", r"liber\w*", r"me deixa? entrar", r"posso (?:entrar|subir)",
        r"instruc(?:ao|oes)", r"ignor[ae]\w*",
        r"sou (?:o |a |um |uma )?(?:morador\w*|sindic[oa]|don[oa]|proprietari[oa])",
        r"(?:eu )?moro (?:aqui|no|na|em|nesse|neste)", r"minha casa", r"meu apartamento",
    ),
    Act.WHY: _any(
        r"por\s?que (?:voce|quer|precisa|preciso|tem|tenho|tanta)",
        r"pra que", r"para que (?:voce|quer|precisa)",
    ),
    Act.DONT_KNOW: _any(*_DONT_KNOW),
    Act.WRONG: _any(
        r"(?:esta |ta |e |numero |apartamento )?errad[oa]", r"nao e (?:esse|isso|este|essa)", r"nao foi isso",
        r"nao,? outro", r"outro apartamento",
    ),
}  # fmt: skip
"""Found anywhere in a sentence."""

_YES = (
    "sim|isso|isso mesmo|exato|exatamente|quero|quero sim|pode|pode ser|por favor|claro|ok|okay|certo|beleza"
    "|ta|ta bom|ta bem|esta bem|aham|uhum|e|e sim|positivo|com certeza|correto|faz favor|faca isso|gostaria"
    "|eu|senhor|senhora|obrigad[oa]"
)
_NO = "nao|nao quero|nao precisa|negativo|nem|nao e|agora nao|melhor nao|obrigad[oa]|senhor|senhora"
_GREETING = (
    "oi|ola|alo|opa|e ai|ei|bom dia|boa tarde|boa noite|tudo bem|tudo bom|tudo joia|como vai|com licenca"
    "|por favor|senhor|senhora|moc[oa]|amig[oa]|ai|e|bom"
)
_THANKS = (
    "obrigad[oa]|muito obrigad[oa]|valeu|brigad[oa]|ta|ta bom|ta bem|esta bem|ok|okay|certo|beleza|entendi|ah"
    "|sim|tudo bem"
)


def _only(words: str) -> re.Pattern[str]:
    return re.compile(rf"^(?:(?:{words})(?: |$))+$")


WHOLE_ACTS: Final = {
    Act.YES: _only(_YES),
    Act.NO: _only(_NO),
    Act.GREETING: _only(_GREETING),
    Act.THANKS: _only(_THANKS),
}
"""The whole sentence, pauses and signs left out, is made of nothing else."""

GREETINGS: Final = (
    ("bom_dia", _any(r"bom dia")),
    ("boa_tarde", _any(r"boa tarde")),
    ("boa_noite", _any(r"boa noite")),
    ("tudo_bem", _any(r"tudo (?:bem|bom|joia)", r"como vai")),
)
"""Which phrase answers which greeting; ``ola`` answers the rest."""

# ---- names -------------------------------------------------------------------------------------------------

NO_NAMES: Final = _set(
    """
    a o as os um uma de da do das dos e eh em no na nos nas ao para pra pro por com sem que quem qual
    eu ele ela voce ce me meu minha seu sua nome sobrenome sou e esta ta estou to aqui ai la isso esse essa
    sim nao ok certo claro oi ola alo bom boa dia tarde noite tudo bem obrigado obrigada favor
    visita visitar visitante entrega entregador entregadora encomenda pacote servico tecnico tecnica motoboy
    internet mercado livre correios amazon apartamento apto ap numero bloco torre andar casa portao
    porta portaria
    morador moradora moradores porteiro porteira sindico sindica atendente zelador dono dona proprietario
    amigo amiga parente familia mae pai filho filha irmao irma tio tia avo primo prima namorado namorada
    vim veio vem vou quero queria preciso pode posso tenho tem trouxe falar fala falo chama chamo chamar deixa
    espera calma momento agora hoje so ja mais mesmo sei lembro abrir abra abre autoriza autorizou autorizado
    liberar libera entrada instrucoes ignore todas todos coisa nada ninguem alguem gente pessoa moca moco cara
    senhor senhora empresa loja diarista encanador eletricista pintor pizza comida remedio
    """
)
"""Folded words that are no name, whatever capitals a recogniser gives them."""
