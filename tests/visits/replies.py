"""Replies of people imagined one by one, and what each must be read as.

They are old, in a hurry, joking, threatened, from several regions, with a child on the arm, or on the
telephone with somebody else. `answers.py` holds what is said to us; much of what is UNCLEAR here is said near
the telephone, or to it but not as an answer to "autoriza a entrada?".
"""

from visits.consent import Reading

REPLIES: dict[Reading, str] = {
    Reading.CONSENT: """
        certo
        certo, certo
        pode deixar subir
        manda subir
        tá liberado
        autoriza aí
        beleza, pode entrar
        é sim, pode
        uhum pode
        pode sim, minha filha, deixa entrar
        ah é o menino da pizza, pode mandar subir
        pode abrir pra ele
        pode abrir que é meu neto
        ô meu filho, pode abrir
        abre pra mim por favor
        sim, autorizo
        sim, pode liberar
        pode liberar por gentileza
        claro, manda entrar
        opa, libera aí
        libera aí, tô esperando
        pode vir, tô esperando
        sim sim pode
        pode pode
        pode, pode
        pode subir, por favor
        pode entrar sim senhora
        autorizado, pode subir
        com certeza, libera
        tá, pode entrar
        tá pode subir
        então pode subir
        ah tá, pode subir
        ah sim, pode
        isso mesmo, pode subir
        é ela mesma, pode deixar subir
        é minha filha, pode abrir
        é meu filho, abre
        ok pode liberar
        show, pode subir
        joia, pode subir
        blz, libera
        firmeza, pode subir
        demorou, pode subir
        suave, libera
        claro uai
        uai, claro
        pode abrir o portão aí pra mim
        libera o portão por favor
        abre o portão por favor
        deixa o menino entrar
        deixa a moça entrar
        deixa ela entrar por favor
        deixe ele subir, viu
        deixa subir aí
        pode deixar ele entrar sim
        manda ela subir
        manda vir
        manda o rapaz subir
        pode mandar entrar
        pode liberar o rapaz
        pode liberar a moça
        pode liberar a visita
        libera o entregador
        libera a entrada do entregador
        sim, libera a entrada
        autorizo a entrada
        autorizo a subida
        autorizo a subida dele
        eu autorizo sim
        autorizo sim senhor
        sim, a entrada está autorizada
        está liberado
        tá liberada a entrada
        liberado
        liberada
        tá autorizado
        por mim pode
        por mim tá liberado
        sem problema, pode subir
        não tem problema não, pode subir
        sim claro
        claro sim
        sim, pode sim
        sim, com certeza
        lógico, pode subir
        afirmativo
        positivo, libera
        pode entrar, querido
        pode subir, meu bem
        pode subir, meu filho
        pode subir, já tô esperando
        pode subir, estou esperando
        já pode subir
        já pode abrir
        pode abrir já
        pode deixar passar
        deixa passar
        pode passar
        pode entrar no prédio
        pode entrar com o carro
        pode subir com a encomenda
        pode subir com o pacote
        Oi, boa tarde, pode subir sim
        Alô, boa noite, pode liberar
        tudo bem, autorizo
        tá certo, autorizo
        perfeito, pode subir
        ótimo, pode subir
        maravilha, pode subir
        legal, pode subir
        sim, tá liberado
        sim, está autorizado
        está autorizada
        ele está autorizado
        sim obrigada
        sim, muito obrigado
        abre aí pra ela
        abre lá
        abre lá pra ele
        libera lá
        pode abri
        pode subi
        pode entrá
        dexa subi
        deixa entra
        deixa ele subi
        pode deixa subi
        sim!
        pode!
        é, libera
        é, pode liberar sim
        autoriza sim
        autorize por favor
        libera sim
        abre sim
        entra sim
        bah, libera
        pode subir guri
        tá bom pode subir
        tudo bem pode subir
        libera logo
        abre logo esse portão
        eita, pode subir
        é de casa, pode subir
        é da família, pode entrar
        é conhecido, pode subir
        é minha visita, pode subir
        é a minha encomenda, pode subir
        aceito, pode liberar
        tá okay
        ok, autorizado
        ok, tá liberado
        pode sim, obrigada
        pode sim, brigado
        sim, pode entrar, obrigado
        pode entrar, obrigada, viu
        autorizo, obrigado
        já está autorizado
        libera a entrega aí
        pode entrar a mulher
        libera ele
        autoriza meu filho
        ela pode
        ele pode
        o senhor pode
        o porteiro pode liberar
        o senhor pode abrir
        eles podem entrar
        sim, sim, sim, tchau
        sim, tchau
        claro, tchau
        autorizo com prazer
        com prazer
        aceito
        concordo
        tá certo
        """,
    Reading.REFUSAL: """
        sobe no sofá não
        tá liberado coisa nenhuma
        autorizo nada
        autorizo porcaria nenhuma
        autorizo é nada
        sim coisa nenhuma
        pode é nada
        pode entrar nada
        ele sim, ela não
        certamente não
        ok, é engano
        com certeza é engano
        eu libero ele não
        eu nunca autorizo
        eu nem autorizo
        libera a catraca não
        pode entrar o Pedro e o outro não
        não sim não
        sim... não
        sim, quer dizer, não
        pode, aliás, não pode
        pode, ou melhor, não
        vem não
        manda embora
        """,
    Reading.QUESTION: """
        sim, com quem
        sim, senhor, quem fala
        certo, e quem é
        autoriza?
        autorizado por quem
        liberado por quem
        claro que é golpe
        é claro que é golpe
        sim, quem gostaria
        pra autorizar eu aperto o quê
        qual tecla autorizo
        amor, autoriza?
        mãe, pode?
        pai, pode entrar?
        vó, deixa entrar?
        tá gravando?
        quem pode
        entra pra ver o que acontece
        """,
    Reading.WAIT: """
        sim, mãe, já vou
        certo, um minuto
        pode entrar e esperar
        pode subir daqui dez minutos
        pode subir em cinco minutos
        pode entrar em cinco minutos
        """,
    Reading.DESK: """
        ok, deixa aí
        ok deixa aí na portaria
        sim deixa com o porteiro
        pode esperar aí embaixo
        """,
    Reading.UNCLEAR: """
        fechou, pode subir
        bota pra dentro
        pode botar pra dentro
        manda pra cá
        certeza, pode subir
        pode entrar, amor
        sim, eu quero que ele suba
        pode ser, libera
        autoriza
        autoriza a entrada
        vamos, libera
        anda, libera logo
        ô, pode subir
        opa, pode
        pois sim
        pois sim, né
        libera o meu carro
        sim, é ela
        sim, é daqui
        sim, aqui é da casa
        Entrada autorizada
        entrada liberada
        acesso liberado
        sim, sou eu
        sim, sou eu mesmo
        sim, é ele
        sim, é o Carlos
        sim, é do 501
        sim, é do apartamento
        sim, é a casa dela
        sim, é aqui
        é sim
        é aqui sim
        sim, sou a moradora
        sim, aqui é a Renata
        sim, aqui em casa
        sim mãe
        sim amor
        sim, meu filho, come
        claro, né
        claro, claro, imagina
        claro, aham, sei
        aham sei
        sei, sei
        tá bom, mãe
        tá bom, meu amor, tchau
        tá bom, come tudo
        ok Google
        ok ok já ouvi
        ok, e daí
        sim, e daí
        sim, e aí
        beleza, e você
        tudo bem, e você
        tudo bem, e o senhor
        tudo certo por aqui
        tudo certo aí
        tudo bem aí
        pode falar
        pode deixar
        pode crer
        pode parar
        pode sair
        pode desligar
        pode vir buscar
        pode vir aqui fora
        entra pra dentro, menino
        entra, menino
        entra no carro
        entra já pra casa
        sobe daí, menino
        desce daí
        abre a boca
        abre a janela
        abre a geladeira
        abre a porta do quarto
        abre o olho
        abre a porta, filho
        fecha a porta
        libera a televisão
        libera o controle
        libera meu celular
        libera a minha garagem
        libera o meu carro da garagem
        libera minha vaga
        pode liberar o meu carro
        pode abrir a janela
        pode abrir a conta
        pode subir o som
        pode subir o preço
        pode subir o volume
        sobe o som
        pode passar o café
        pode entrar na fila
        pode entrar em contato
        pode entrar no banho
        pode entrar no site
        manda subir o preço
        manda entrar em contato
        deixa entrar ar
        deixa entrar um ventinho
        deixa subir o elevador
        deixa eu entrar
        deixa eu subir
        sobe essa calça
        sobe o elevador
        entra em contato
        entra na justiça
        autoriza a entrada sim ou não
        sim ou não
        posso liberar a entrada
        autorizado pelo síndico
        liberado pelo porteiro
        já foi autorizado
        foi autorizado
        foi liberado
        estava autorizado
        ele estava liberado
        tá liberado é o escambau
        claro que você acha
        pode subir é o caramba
        pode entrar uma pinoia
        vai sonhando que pode
        sonha que pode entrar
        claro, até parece
        até parece que pode
        imagina, pode entrar
        imagina
        capaz que eu vou deixar
        capaz
        bem capaz
        magina
        aí sim
        ah sim
        agora sim
        isso sim
        esse sim
        ela sim
        eu sim
        com certeza é golpe
        sim, é golpe
        tá certo, é golpe isso
        sim, ligou errado
        sim, número errado
        tá ok, errado
        por mim tanto faz
        sim, tanto faz
        tá bom, vai
        vai, pode
        ah vai
        ah, sei lá, pode
        autorizo quando eu quiser
        só autorizo se subir com documento
        autorizo depois
        sim depois
        sim mais tarde
        sim, amanhã
        sim, ontem
        sim, pediu ontem
        sim, eu pedi
        sim, eu pedi pizza
        sim, pedi sim
        sim, conheço ele
        sim, espero visita
        sim, estou em casa
        sim, estou ouvindo
        sim, ouvi
        sim, entendi
        sim, estou aqui
        sim, tô aqui
        sim, ainda estou aqui
        estou aqui sim
        sim, pode falar
        sim, fala
        sim, diga
        sim, pois não
        sim, alô
        alô sim pode falar
        sim, oi
        oi, sim
        sim, bom dia
        bom dia, sim
        sim, boa tarde
        claro, pode perguntar
        pode perguntar
        sim, pergunta
        sim pergunta pra ele
        ok, pergunta
        tá, pergunta
        sim, vou descer
        sim, já desço
        sim, eu desço
        sim, estou descendo
        ok, já desço
        pode deixar que eu abro
        eu abro
        eu libero daqui
        eu libero depois
        eu autorizo depois
        eu autorizo amanhã
        se eu autorizo
        como é que eu autorizo
        aperto um
        tecle um
        tecle um para autorizar
        tecla um para autorizar ou dois para negar
        um
        um para autorizar
        para autorizar
        sim para autorizar
        diga sim
        diga sim ou não
        fala sim
        fale sim
        ela falou sim
        ele disse sim
        a moça tá perguntando se pode entrar
        tem gente pedindo pra entrar
        tão perguntando se autoriza
        mãe, posso deixar
        ok, tá gravando
        está gravado
        é uma gravação
        gravação
        é trote
        sim, trote
        é uma brincadeira
        pode brincar
        sim, pode cancelar
        pode cancelar
        cancela
        ok, cancela
        tá bom, manda voltar
        manda voltar
        pode mandar voltar
        pode voltar
        manda descer
        pode mandar descer
        tá bom, eu busco
        tá bom, eu vou aí
        tá bom, depois
        tá bom, depois eu vejo
        sim, fica com ele
        sim, recebe
        sim, recebe aí
        pode receber
        pode receber aí
        pode pegar
        pode assinar
        recebe pra mim
        autorizo a receber
        autorizo o porteiro a receber
        autorizo você receber
        autorizo a deixar na portaria
        autorizo deixar aí
        sim, mas
        sim, só que
        sim, porém
        sim, contanto que
        sim, desde que
        sim desde que mostre o documento
        pode entrar desde que deixe o documento
        pode entrar com documento
        pode subir acompanhado
        pode subir com o porteiro
        pode subir pela escada
        pode entrar até o hall
        pode entrar até a recepção
        pode entrar na recepção
        pode ficar aí
        pode ficar esperando
        pode vir outro dia
        pode vir segunda
        pode vir às cinco
        pode vir semana que vem
        pode voltar amanhã
        pode subir daqui a pouco
        pode subir às oito
        libera daqui a pouco
        autorizo um deles
        autorizo o outro
        autorizo ele e não ela
        pode subir um
        pode subir um só
        um pode subir
        pode subir dois
        pode subir o Pedro
        pode subir menos o João
        libera a Maria
        libera você
        me libera
        libera eu
        me libera daqui
        me deixa entrar
        me deixa subir
        me abre
        me autoriza
        autoriza eu
        autoriza a mim
        você pode
        você autoriza
        você libera
        você abre
        vocês liberam
        a gente pode
        a gente autoriza
        nós autorizamos
        meu marido pode autorizar
        minha mãe autoriza
        ela autoriza
        sim siô sim siô
        tchau, sim
        ok tchau
        pode entrar, mentira
        pode entrar, brincadeira
        pode subir, tô brincando
        pode entrar kkk
        sim, brincadeira
        sim, mentira
        é mentira, sim
        pode subir, se quiser morrer
        pode subir se for homem
        entra pra ver
        entra se for homem
        sobe aqui pra você ver
        sobe aqui se tem coragem
        vem
        vem cá
        vem aqui
        pode vir pra briga
        manda ver
        manda brasa
        manda bala
        manda passear
        manda pastar
        manda catar coquinho
        manda ele se catar
        manda entrar pela janela
        deixa pra amanhã
        deixa quieto
        deixa assim
        deixa disso
        deixa de entrar
        deixa ele
        deixa ele aí
        deixa ele esperando
        deixa ele lá fora
        deixa ele subir sozinho
        deixa subir sozinho
        prazer
        aceito o desafio
        concordo com você
        concordo plenamente
        sem dúvida
        sem dúvida nenhuma
        tranquilo
        de boa
        suave
        show
        fechado
        combinado
        demorou
        já é
        formou
        bora
        vamos
        vamos lá
        pode apostar
        pode ter certeza
        tenha certeza
        certeza
        correto
        exato
        exatamente
        perfeito
        ótimo
        isso aí
        é isso aí
        é isso
        ah é
        é mesmo
        sério
        jura
        nossa
        meu Deus
        socorro
        socorro, abre
        chama a polícia
        pode chamar a polícia
        sim, chama a polícia
        sim, socorro
        libera logo senão
        estou sendo ameaçada, libera
        estão me obrigando, libera
        """,
}

SAID = [
    (sentence.strip(), reading)
    for reading, sentences in REPLIES.items()
    for sentence in sentences.splitlines()
    if sentence.strip()
]
"""Each reply and its reading."""
