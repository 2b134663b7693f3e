"""The words of an answer at the door and what they are good for; ``consent.py`` reads with them.

Everything is folded (lower case, no accents).
"""

from enum import Enum, auto


class Kind(Enum):
    """What a word or phrase does in an answer."""

    PERMISSION = auto()
    YES = auto()
    AGREED = auto()
    MAY = auto()
    OURS = auto()
    NEGATION = auto()
    REFUSAL = auto()
    DOUBT = auto()
    QUESTION = auto()
    REPEAT = auto()
    WAIT = auto()
    HELLO = auto()
    DESK = auto()
    TAINT = auto()
    THANKS = auto()
    STATEMENT = auto()
    FILLER = auto()


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    """Phrases separated by ``/``."""
    return tuple(tuple(phrase.split()) for phrase in text.split("/"))


NEGATIONS = _set("nao nunca jamais nem nenhum nenhuma ninguem nada tampouco nau naum nam n num negativo")
MODALS = _set("pode podem")
ENTER = _set("entrar subir passar vir")
ENTERING = _set("entrando subindo passando vindo")
OPEN = _set("liberar abrir autorizar permitir")
OPENING = _set("liberando abrindo autorizando permitindo")
ALLOW_ME = _set("autorizo libero permito")
ALLOWED = _set("permitido autorizado autorizada autorizados liberado liberada liberados")
COMMANDS = _set("libera libere liberem abre abra abram autoriza autorize autorizem permita")
"""Permission as a command, where nobody stands before it who does it ("ela libera")."""
COME = _set("entra entre sobe suba entrem subam")
CLIPPED = _set("libera autoriza abri entra subi")
"""Infinitives as much of Brazil says them, "pode liberá": only directly after "pode", where they are
nothing else."""
LET = _set("dexa deixa deixe deixem deixar deixo")
AFTER_BARE_MODAL = _set("pode sim claro por obrigado obrigada senhor moco viu uai nao")
"""What may follow a "pode" that stands by itself."""
NOT_LET = _set("eu me que ai la portaria elevador portao porta")
"""What cannot stand between "deixa" and "entrar" when somebody is let in."""
SEND = _set("manda mande mandem mandar")
PERMISSION_WORDS = ENTER | OPEN | ALLOW_ME | ALLOWED | COMMANDS | COME | LET | MODALS

DOORS = _set("portao porta entrada garagem portaozinho catraca")
ARTICLES = _set("o a os as um uma")
"""After a permission's verb these introduce somebody by name: "libera o Pedro da Silva"."""
PLACES = DOORS | _set("apartamento casa predio condominio elevador andar garagem")
"""What "no" and "na" may stand before."""
CERTAIN = _set("claro logico obvio certeza evidente")
"""After these "que" begins no report: "claro que pode"."""
OWN = _set("meu minha meus minhas")
THINGS = DOORS | _set("carro carros elevador acesso casa apartamento predio condominio andar")
"""What goes up or is set free without anybody being let in: "sobe o elevador", "libera o meu carro"."""
SELVES = _set("eu mim voce voces")
"""Who cannot be let in by their own words: "libera eu", "autoriza a mim"."""
KIN = _set("mae pai filho filha vo vovo amor menino menina bebe tio tia primo prima")
"""Called by nothing but that ("entra, menino", "sim, mãe"), it is somebody at home who is spoken to."""
BEFORE_KIN = (
    OWN
    | ARTICLES
    | _set(
        """
        seu sua seus suas nosso nossa dele dela da do de com pra pro pras pros para por e esse essa este
        esta aquele
        """
    )
)
"""What stands before kin who are spoken of, or before a stranger who is called so kindly: "meu filho"."""
OTHERS = _set(
    """
    ele ela eles elas gente marido esposa mulher homem mae pai filho filha irmao irma tio tia avo neto neta
    sogra sogro cunhado cunhada sobrinho sobrinha namorado namorada familia sindico sindica diarista vizinho
    vizinha
    """
)
"""Who does not open the gate for the resident: "meu marido pode autorizar" leaves it to him."""
LIGHT = _set(
    """
    ah eh hum hm hmm uh uhum aham ahan oh ih mm entao olha bom bem pois uai oxe oxente bah tche ue po eita
    vixe visse viu mano cara rei tranquilo ta senhor senhora sr sra moco moca rapaz ja agora por favor
    gentileza faz o mim logo rapidinho
    """
)
"""The only fillers that a mere yes may have with it: else it may answer something else ("sim, é ela")."""
TAGS = _set("ta ok viu certo hein beleza entendeu combinado")
"""Words that, with a question mark, only seek agreement: "não autorizo, tá?"."""
INCOMPLETE = _set(
    """
    no na nos nas pelo pela com de do da dos das ao aos pra para pro pras pros o a os as um uma uns umas por
    """
)
"""Words that need a noun: never the last of a clause, never before a verb."""
JOINING = _set("e que")
NASAL = _set("hum hm hmm bem bom")
"""What a clipped "não" or "num" is heard as; before a verb these need the pause that real ones have."""

TAINTS = _set(
    """
    se caso mas porem todavia so somente apenas ou ate quando enquanto depois antes amanha ontem tarde
    outro outra disse diz dizer disseram fala falar falou falaram avisa avisar avisou pergunta
    perguntar perguntou pediu quer queria mandou autorizei autorizou autorizaram autorizava liberei
    liberou liberaram deixei deixou deixaram abri abriu permitiu podia poderia poderiam devia deveria
    vou vai vamos ia posso porque menos exceto ne primeiro sem ova escambau cacete caralho porra merda
    puta diabo inferno nadica
    """
)
"""Words that condition, report, postpone or limit what is said."""
FILLERS = _set(
    """
    ah eh hum hm hmm uh uhum aham ahan oh ih mm ha ai entao olha bom bem pois uai oxe oxente bah tche
    ue po poxa egua mana visse viu mano cara meu rei mermao veio vei tranquilo isso e ta esta eu ele
    ela eles elas voce voces me lhe mim nos gente a o os as ao aos um uma uns umas de do da dos das
    dele dela deles delas para pra pro pras pros por com este esse essa estes essas aquele aquela isto
    minha meus minhas seu sua dona senhor senhora sr sra seus suas agora ja aqui ali logo mesmo mesma
    tambem hoje rapido rapidinho direto sempre entrada subida acesso portao porta garagem catraca
    carro elevador apartamento casa predio condominio andar visita visitante visitantes entrega
    entregador entregadora encomenda encomendas pacote comida pizza lanche compra compras remedio
    flores servico tecnico tecnica diarista faxineira prestador encanador eletricista pintor motorista
    moco moca rapaz menino menina homem mulher pessoa pessoal amigo amiga amigos amigas primo prima
    irmao irma pai mae filho filha tio tia avo sogra sogro cunhado cunhada sobrinho sobrinha namorado
    namorada marido esposa vizinho vizinha colega familia parente porteiro favor gentileza bjs abraco
    esperando aguardando vixe eita nossa amor querido querida pelo pela chegou chegando
    neto neta genro nora enteado enteada afilhado afilhada padrinho madrinha compadre comadre conhecido
    conhecida guri guria show joia blz perfeito otimo otima maravilha legal demorou firmeza suave
    """
)
"""Words that change nothing."""
HESITATIONS = _set("ah eh hum hm hmm humm uh ahn oh ih mm ha hun huh mhm rum")
NOISES = _set(
    """
    musica risos risada aplausos silencio ruido ruidos inaudivel tosse suspiro barulho som vento
    estatica latidos
    """
)
"""What recognisers write for sounds that are no speech."""
FAREWELLS = _set("obrigado obrigada tchau valeu muito adeus")
INVENTED = (
    "legendas pela comunidade amara org",
    "legendas pela comunidade das amara org",
    "legenda adriana zanotto",
    "transcricao e legendas pela comunidade amara org",
    "obrigado por assistir",
    "obrigada por assistir",
    "obrigado por assistirem",
    "inscreva se no canal",
    "se inscreva no canal",
    "ate a proxima",
    "ate o proximo video",
    "nao se esqueca de se inscrever no canal",
    "deixe o seu like",
    "e ai galera",
)
"""What recognisers write in silence, whole sentences."""

PHRASES: dict[Kind, tuple[tuple[str, ...], ...]] = {
    Kind.YES: _phrases(
        """
        nao tem problema / nao tem problema nenhum / nao tem nenhum problema / nao ha problema /
        nao vejo problema / nao vejo nenhum problema / nao vejo problema nenhum /
        nao vejo problema algum / sem problema / sem problemas / sem nenhum problema /
        sem problema nenhum / sem problema algum / nao me importo / nao faz mal / por mim tudo bem /
        por mim tudo certo / com certeza / sim / claro / claro que sim / logico / logico que sim /
        obvio / positivo / afirmativo / concordo / aceito / com prazer / mas e claro / mas claro /
        e claro
        """
    ),
    Kind.AGREED: _phrases(
        """
        tudo bem / tudo certo / ta bom / ta bem / ta certo / ta ok / esta bem / esta bom / esta certo /
        ok / okay / okey / oquei / beleza / certo
        """
    ),
    Kind.THANKS: _phrases(
        "obrigado / obrigada / brigado / brigada / muito obrigado / muito obrigada / valeu / tchau / de nada"
    ),
    Kind.STATEMENT: _phrases(
        """
        conheco / conheco sim / eu sei quem e / sei quem e / e sim / e aqui sim / e ela sim /
        e ele sim /
        ah sim / a sim / ai sim / agora sim / isso sim / esse sim / essa sim / este sim / esta sim / ele sim /
        ela sim / eles sim / elas sim / eu sim / voce sim / ja sim / aqui sim / hoje sim
        """
    ),
    Kind.OURS: _phrases(
        """
        autoriza / autoriza entrada / autoriza a entrada / autorizada / entrada autorizada /
        entrada liberada / acesso liberado / acesso autorizado
        """
    ),
    Kind.TAINT: _phrases("pois sim / sim ou nao / um deles / uma delas / um dos dois / uma das duas"),
    Kind.REFUSAL: _phrases(
        """
        de jeito nenhum / de maneira nenhuma / de maneira alguma / de forma nenhuma / de forma alguma
        / de modo algum / de jeito maneira / nem pensar / nem morto / nem morta / nem a pau /
        nem por cima do meu cadaver / deus me livre / nada disso / claro que nao / logico que nao /
        obvio que nao / com certeza nao / ir embora / vai embora / va embora / mandar embora /
        manda embora / mande embora / manda ele embora / manda ela embora / mandar ele embora /
        mandar ela embora / dispensa / dispense / dispensar / recuso / recusar / recusa / recuse /
        nego / negado / negada / proibo / proibido / proibida / barra ele / barrar / barrado /
        e engano / foi engano / nao estou / nao to / nao conheco / nao quero / nao queremos / nao pedi
        / nao pedimos / nao espero / nao chamei / nao combinei / nao marquei / nao aceito / nao recebo
        / nao vou receber / nao posso receber / nao posso atender / nao vou atender / nao e aqui /
        nao e para mim / nao e pra mim / nao tem ninguem / nao deixo / nao vou deixar /
        nao vou liberar / nao vou autorizar / nao vou abrir / nao convidei / nao mora aqui / nao da /
        nao e pra / nao e para / negativo / melhor nao / nao precisa / eu sai / que sai /
        eu viajei / estou viajando / to viajando / tambem nao / nem vem
        """
    ),
    Kind.DOUBT: _phrases(
        """
        nao sei / sei la / sei nao / nao tenho certeza / nao lembro / nao me lembro / nao tenho ideia
        / nao faco ideia / nao faco a menor ideia / talvez / acho / acredito / creio / imagino /
        suponho / depende / quem sabe / pode ser / provavelmente / sera / parece / deve / devo /
        tanto faz / mais ou menos / duvido / duvida / nao estou certo / nao estou certa /
        nao estou lembrando / nao estou sabendo / nao to sabendo / nao to lembrando
        """
    ),
    Kind.REPEAT: _phrases(
        """
        nao entendi / nao ouvi / nao escutei / nao compreendi / nao estou ouvindo /
        nao estou escutando / nao estou entendendo / nao to ouvindo / nao to escutando /
        nao to entendendo / nao da pra ouvir / nao deu pra ouvir / nao consigo ouvir /
        nao consigo escutar / repete / repita / repetir / de novo / como e que e / hein / nao peguei
        """
    ),
    Kind.QUESTION: _phrases(
        """
        quem / qual / quais / onde / aonde / cade / o que / que que / por que / como assim / quanto /
        quantos / quantas / que e / que foi / que esta / que ta / que quer / que deseja
        """
    ),
    Kind.WAIT: _phrases(
        """
        momento / momentinho / minuto / minutinho / minutos / segundo / segundinho / instante /
        instantinho / espera / espere / esperar / aguarda / aguarde / aguardar / calma / pera / perai
        / ja vou / deixa eu ver / deixa eu pensar / deixa ver / deixe eu ver / vou ver / vou verificar
        / vou perguntar / ja te falo / ja falo / so um pouco / um pouquinho
        """
    ),
    Kind.HELLO: _phrases(
        """
        alo / oi / ola / opa / pronto / bom dia / boa tarde / boa noite / pois nao / oi tudo bem /
        oi tudo bom / ola tudo bem / ola tudo bom / tudo bom / tudo bem com voce / e ai
        """
    ),
    Kind.DESK: _phrases(
        """
        na portaria / na recepcao / na guarita / portaria / recepcao / guarita / com o porteiro /
        com a porteira / com o seguranca / com o zelador / la embaixo / ai embaixo / la em baixo /
        ai em baixo / deixa ai / deixe ai / deixar ai / deixa com voce / deixa com voces /
        deixar com voce / deixar com voces / deixe com voce / deixa contigo / deixa por ai /
        deixar por ai / deixa embaixo / deixar embaixo
        """
    ),
    Kind.FILLER: _phrases(
        """
        por favor / por gentileza / faz favor / faz o favor / por mim / autorizou sim / a vontade /
        sem duvida / sem duvida nenhuma / sem duvida alguma / estou esperando / to esperando /
        estava esperando / tava esperando / esta me esperando / e para mim / e pra mim / e meu /
        e minha / e o meu / e a minha / de boa / em cima / aqui em cima / com voce
        """
    ),
}
