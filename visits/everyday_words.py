"""Words at a door that are nobody's name, and those that stand around names. All folded (no accents)."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    """Phrases separated by ``/``."""
    return tuple(tuple(phrase.split()) for phrase in text.split("/"))


TITLES = _set(
    """
    dona don seu senhor senhora sr sra srta senhorita doutor doutora dr dra professor professora prof
    tio tia vo vovo
    """
)
"""What stands before a name and is not part of it."""

JOINING = _set("de da do das dos e d")
"""What stands inside a name."""

ARTICLES = _set("o a os as")

SELF = _phrases(
    """
    meu nome e / o meu nome e / meu nome / me chamo / eu me chamo / eu sou / sou / aqui e /
    aqui quem fala e / quem fala e / quem esta falando e / fala aqui e / aqui fala / pode me chamar de
    """
)
"""The speaker's own name follows."""

OTHER = _phrases(
    """
    para / pra / pro / pros / pras / falar com / visitar / encontrar / procurando / procuro / procurar /
    chamar / chama / chame / avisa / avisar / conheco / em nome de / em nome do / em nome da /
    no nome de / no nome do / no nome da / nome de / destinatario / destinataria / aos cuidados de /
    aos cuidados do / aos cuidados da / casa do / casa da / casa de / apartamento do / apartamento da /
    apto do / apto da / amigo do / amigo da / amiga do / amiga da / quero o / quero a
    """
)
"""Somebody whom the speaker asks for follows."""

WEAK = _phrases(
    """
    visita / ver / com o / com a / ao / a / o / do / da
    """
)
"""Somebody may follow: only a word that looks like a name by itself counts."""

AFTER_NAME = _set(
    """
    ja autorizou autoriza disse falou pediu mandou liberou deixou mora esta ta me vai pode sabe chamou
    """
)
"""What somebody does: "a renata já autorizou"."""

RELATIONS = _set(
    """
    meu minha amigo amiga mae pai primo prima filho filha irmao irma morador moradora sindico sindica
    tio tia avo sogra sogro vizinho vizinha cliente colega
    """
)
"""What may stand between "visitar" and the name: "o meu amigo Carlos"."""

COMPANIES = _set(
    """
    amazon correios ifood rappi uber sedex loggi jadlog mercado livre shopee magalu magazine americanas
    net vivo claro tim oi sky enel sabesp comgas copel cemig light cpfl telhanorte drogasil raia
    carrefour extra shein aliexpress fedex dhl ups total express jt zedelivery daki cornershop ultragaz
    liquigas supergasbras
    """
)
"""Firms that send people to doors."""

COMMON = _set(
    """
    a ao aos as e o os uns umas de da do das dos d em na no nas nos num numa por pela pelo pelas pelos
    para pra pro pros pras com sem sob sobre ate entre que quem qual quais quando onde como porque se
    mas ou nem eu tu ele ela eles elas voce voces me te lhe mim ti comigo contigo meu minha meus minhas
    teu tua seu sua seus suas nosso nossa dele dela deles delas este esta isto esse essa isso aquele
    aquela aquilo aqui ali la ai agora hoje ontem amanha ja ainda sempre nunca so mesmo tambem muito
    pouco mais menos bem mal nao sim ok claro eh sou es era foi ser sao somos estou ta to estamos estava
    estar vim vem veio vir vou vai ir indo tenho tem temos ter tinha quero quer queria querer posso pode
    poderia podem preciso precisa fazer faz fazendo fiz sei sabe saber deixa deixar deixo deixe entrar
    entra entrada subir sobe suba abrir abre abra abro abriu liberar libera libere libero liberou
    autorizar autoriza autorizo autorize autorizou autorizado permitir entregar entrega entregas
    entregador entregadora encomenda encomendas pacote pacotes caixa caixas pedido comida lanche pizza
    mercado compra compras carta cartas documento documentos produto correio correios visita
    visitas visitar visitante visitantes servico servicos tecnico tecnica internet manutencao conserto
    consertar instalar instalacao limpeza diarista faxineira faxina eletricista encanador pintor
    pedreiro gas agua telefone celular morador moradora moradores residente proprietario
    proprietaria inquilino inquilina dono porteiro portaria portao porta predio condominio bloco torre
    apartamento apartamentos apto ap unidade numero andar casa cobertura sindico sindica zelador
    zeladora atendente humano pessoa pessoas gente alguem ninguem vizinho vizinha amigo amiga amigos
    amigas primo prima pai mae filho filha irmao irma tio tia avo sobrinho sobrinha namorado namorada
    marido esposa esposo mulher homem moco moca rapaz senhor senhora cliente familia parente colega
    chefe motorista taxi taxista carro moto aplicativo empresa loja farmacia mercadoria bom boa dia
    tarde noite oi ola alo tudo obrigado obrigada favor gentileza desculpa desculpe licenca tchau espera
    espere esperar esperando aguarda aguardo momento minuto minutinho segundo instante certo certeza
    repetir repete repita entendi entender falar fala falando fale falou diz dizer disse digo pede pedir
    chamar chama chame nome chamo procurar procuro procurando encontrar ver vejo verdade errado correto
    exatamente quinto primeiro ultima ultimo outra outro outras outros nada algo coisa coisas vez todas
    todos toda todo tal ignore ignora instrucoes instrucao regras sistema buscar busca pegar pega trazer
    traz trago levar leva lembro lembrar acho talvez consigo conseguir ajudar ajuda assim entao depois
    antes ficou fica ficar combinado combinei marcado marquei reuniao festa aniversario almoco jantar
    aula consulta horario hora horas convidado convidada jeito nenhum melhor ne uai po ah hum uhum aham
    ue opa oxe pois cade
    """
)
"""Words that are no names, so that a recogniser's lower case can't make a name of them."""
