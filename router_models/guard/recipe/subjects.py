"""What general questions are about: things that people do, by kind, with other wordings of the same."""

from __future__ import annotations

__all__ = ["ALIKE", "DOINGS", "TAILS"]

DOINGS = """
health
    lose weight / shed weight / drop some weight / lose some pounds; gain weight / put on weight / become heavier
    lose belly fat / get rid of belly fat / burn belly fat; build muscle / gain muscle / put on muscle
    sleep better / get better sleep / have better sleep; fall asleep faster / get to sleep faster / fall asleep more quickly
    wake up early / get up early / rise early; stay awake at night / not fall asleep at night
    grow taller / become taller / increase my height; have clear skin / get clear skin / get a clear complexion
    lower my blood pressure / reduce my blood pressure / bring my blood pressure down; raise my blood pressure
    lower my cholesterol / reduce my cholesterol; control my blood sugar / keep my blood sugar under control
    strengthen my immune system / boost my immunity / improve my immune system; stop hair loss / prevent hair loss
    grow my hair faster / make my hair grow faster; get rid of dandruff / remove dandruff; whiten my teeth / get whiter teeth
    eat healthier / eat more healthily / have a healthier diet; become a vegetarian / go vegetarian; become a vegan / go vegan
    run every day / go running every day / go for a run daily; do yoga every morning / practise yoga every morning
    drink more water / increase my water intake; skip breakfast / not eat breakfast; fast for a day / go a day without food
    meditate every day / do meditation daily; improve my eyesight / better my vision / improve my vision
    donate blood / give blood; get a flu shot / get vaccinated against the flu; take vitamins / take vitamin supplements
    improve my posture / fix my posture / correct my posture; reduce stress / lower my stress / relieve stress
    get pregnant / become pregnant / conceive; stay fit / keep fit / stay in shape; get six pack abs / get a six pack
    improve my memory / get a better memory / boost my memory; have more energy / get more energy / feel more energetic
    recover from surgery / heal after surgery; work out at night / exercise at night / train at night
money
    save money / put money aside / save some money; make money online / earn money online / earn money on the internet
    invest in stocks / buy shares / put money into stocks; invest in gold / buy gold as an investment
    invest in real estate / put money into real estate; invest in bitcoin / buy bitcoin / put money into bitcoin
    buy a house / purchase a house / buy a home; sell my house / sell my home; rent an apartment / rent a flat
    rent out my apartment / let my flat; pay off my debt / get out of debt / clear my debts; take out a loan / get a loan
    lend money to a friend / give a friend a loan; borrow money from a friend / ask a friend for a loan
    improve my credit score / raise my credit score / increase my credit score; check my credit score / see my credit score
    open a bank account / set up a bank account; close a bank account / shut a bank account
    get a credit card / apply for a credit card; cancel a credit card / get rid of a credit card
    retire early / go into early retirement; become rich / get rich / become wealthy; start a business / start a company
    sell my business / sell my company; file my taxes / do my taxes / submit my tax return; reduce my taxes / pay less tax
    buy a used car / purchase a second hand car / get a second hand car; lease a car; get insurance for my car / insure my car
    transfer money abroad / send money abroad / send money to another country; receive money from abroad
    raise money for a startup / get funding for a startup / fund a startup; win the lottery; live on a small income / get by on little money
    trade currencies / do forex trading; negotiate a salary / bargain over a salary; ask for a raise / request a pay rise
skill
    learn to code / learn programming / learn how to program / learn coding; learn english / study english; learn spanish / study spanish
    learn to drive / learn driving / learn how to drive; learn to swim / learn swimming / learn how to swim
    learn to cook / learn cooking / learn how to cook; learn to draw / learn drawing / learn how to draw
    learn to sing / learn singing / learn how to sing; learn to dance / learn dancing / learn how to dance
    learn to play the guitar / learn the guitar / learn guitar; learn to play the violin / learn the violin
    learn to play chess / learn chess / learn how to play chess; learn to ride a bicycle / learn cycling
    speak english fluently / become fluent in english / talk fluently in english; write english well / become good at writing english
    improve my handwriting / get better handwriting; improve my vocabulary / expand my vocabulary / increase my vocabulary
    improve my accent / get a better accent; read faster / increase my reading speed / become a faster reader
    write a novel / write a book of fiction; publish a novel / get a novel published; write a song / compose a song
    write a speech; give a speech / hold a speech / deliver a speech; speak in public / do public speaking
    take better photos / become better at taking photos / improve my photos; edit videos / do video editing
    type faster / increase my typing speed; solve a rubik's cube; memorize a poem / learn a poem by heart
    think faster / become a quicker thinker; become more confident / gain confidence / get more self confidence
    become more creative / increase my creativity; manage my time better / improve my time management
    be more productive / increase my productivity / become more productive; stay motivated / keep my motivation / remain motivated
    focus better / improve my concentration / concentrate better; make better decisions / improve my decision making
    do a backflip; run a marathon / complete a marathon; climb a mountain / go up a mountain; train a dog / do dog training
tech
    install linux on a laptop / put linux on a laptop; remove linux from a laptop / uninstall linux from a laptop
    reset a laptop / restore a laptop to factory settings; speed up a laptop / make a laptop faster / make my laptop run faster
    update a phone / install updates on a phone; unlock a phone; back up a phone / make a backup of a phone
    restore a phone from a backup; recover deleted photos / get deleted photos back / restore deleted photos
    delete photos for good / permanently delete photos; recover deleted messages / get back deleted messages
    transfer photos to a computer / move photos to a computer / copy photos to a computer; take a screenshot / make a screenshot
    record the screen / make a screen recording; print a document / print out a document; scan a document
    connect a printer / set up a printer; connect a laptop to a tv / hook up a laptop to a television
    remove a virus / get rid of a virus / delete a virus; block a website / block access to a website; unblock a website
    block ads / get rid of ads; free up disk space / get more disk space / clear disk space
    extend battery life / make the battery last longer; replace the battery / change the battery / swap the battery
    convert a pdf to word / turn a pdf into a word document; convert word to pdf / turn a word document into a pdf
    merge two pdf files / combine two pdf files; split a pdf file; compress a video / make a video smaller; crop a video / cut a video
    download a video / save a video; upload a video / put a video online; build a website / create a website / make a website
    host a website; build an app / develop an app / create an app / make an app; publish an app; learn git / study git
    sort a list in python / order a list in python; reverse a list in python; merge two lists in python / join two lists in python
    read a file in python / open and read a file in python; write a file in python; install a package with pip
    rename a git branch; delete a git branch / remove a git branch; merge a git branch; undo a git commit / revert a git commit
    connect to a database; create a table in sql / make a table in sql; drop a table in sql; update a row in sql; hack a wifi network
    change my ip address / get another ip address; hide my ip address; find my ip address / see my ip address
social
    make friends / find friends / make new friends; lose friends; talk to strangers / start conversations with strangers
    get a girlfriend / find a girlfriend; get a boyfriend / find a boyfriend; get over a breakup / recover from a breakup
    break up with someone / end a relationship; get back together with an ex / win an ex back; forget an ex / get over an ex
    ask a girl out / ask a girl on a date; ask a guy out / ask a guy on a date; impress a girl; impress a guy
    fall in love; fall out of love; save a marriage / rescue a marriage; end a marriage / get a divorce / get divorced
    apologize to a friend / say sorry to a friend; forgive a friend; trust people again / regain trust in people
    deal with a difficult boss / handle a difficult boss; deal with a toxic friend / handle a toxic friend
    tell if someone is lying / know if someone is lying / find out if someone lies; lie to a friend
    become less shy / get over shyness / overcome my shyness; live alone / live on my own / live by myself; live with my parents
    marry young / get married young; marry late / get married late; raise a child alone / bring up a child alone
    adopt a child; comfort a grieving friend / console a grieving friend; ignore someone; impress an interviewer
study
    study for exams / prepare for exams; study late at night / learn at night; study abroad / study in a foreign country
    study in germany; study in canada; get a scholarship / win a scholarship / obtain a scholarship
    get good grades / get better grades / get high marks; pass an exam without studying; fail an exam
    write an essay; write a thesis / do a thesis; cite a source / quote a source; take notes / make notes
    learn faster / pick up things faster; remember what i read / keep in mind what i read / retain what i read
    understand maths / get maths; understand physics / get physics; do a phd / get a phd / do a doctorate; do a masters / get a masters degree
    drop out of college / leave college / quit college; go to college / attend college; choose a college / pick a college
    change my major / switch my major; choose a major / pick a major; learn calculus / study calculus; skip a grade
    take a gap year / have a year off; get into medical school / be admitted to medical school; get into law school
career
    get a job / find a job / land a job; quit my job / leave my job / give up my job; lose my job; change careers / switch careers
    write a resume / make a resume / create a cv; write a cover letter; prepare for an interview / get ready for an interview
    get promoted / get a promotion / move up; work from home / work remotely; work abroad / work in another country
    become a doctor; become a nurse; become a lawyer; become a pilot; become a data scientist; become a software engineer
    become an actor; become a writer / become an author; become a teacher; become a police officer; join the army; join the navy
    work as a freelancer / freelance / do freelance work; hire a freelancer; start a blog / create a blog; start a podcast
    resign politely / quit politely; ask for feedback; give feedback; deal with a lazy colleague / handle a lazy colleague
    get an internship / find an internship; find a mentor / get a mentor; become a mentor; work part time / have a part time job
    work two jobs / have two jobs; get my first client / find my first client
home
    clean an oven; clean a carpet / clean a rug; clean windows / wash windows; remove mold / get rid of mold; unclog a drain / clear a drain
    remove a coffee stain / get a coffee stain out; remove a red wine stain / get a red wine stain out; wash wool / clean wool
    get rid of ants / kill ants; get rid of mice / get mice out; get rid of bed bugs / kill bed bugs; paint a wall; paint a ceiling
    hang a picture / put up a picture; fix a leaking tap / repair a leaking faucet / fix a dripping tap; change a light bulb / replace a light bulb
    cook rice / make rice / boil rice; cook pasta / make pasta / boil pasta; bake bread / make bread; make pizza dough / prepare pizza dough
    boil eggs / cook boiled eggs; fry eggs; poach eggs; freeze bread; grow tomatoes / plant tomatoes; grow herbs indoors / grow herbs inside
    build a shed; insulate an attic; heat a greenhouse; install a dishwasher; store potatoes; ripen avocados / make avocados ripen
    make coffee without a machine / brew coffee without a machine; sharpen a knife / make a knife sharp; keep a house cool / cool a house
travel
    travel alone / travel by myself / travel solo; travel cheaply / travel on a budget / travel for little money
    travel around the world / see the whole world; travel with a baby / take a baby on a trip; travel with a dog / take a dog on a trip
    get a passport / apply for a passport; renew a passport / get a new passport; get a visa / obtain a visa; extend a visa
    find cheap flights / get cheap flights / book cheap flights; find cheap hotels / get cheap hotels; rent a car / hire a car
    cancel a flight; change a flight / rebook a flight; book a flight / reserve a flight; pack a suitcase / pack a bag
    get over jet lag / recover from jet lag; avoid jet lag / prevent jet lag; drive across europe; cross the border by car
    fly with a cold; carry medicine on a plane / take medicine on a plane; move to another country / emigrate
    live in a van; work while traveling / work on the road; hitchhike through europe; camp in the mountains
bad
    smoke / smoke cigarettes; drink alcohol / drink; bite my nails / chew my nails; eat junk food / eat fast food; eat sugar / eat sweets
    procrastinate / put things off; overthink / think too much / overthink everything; worry / worry so much / worry all the time
    watch too much tv / watch tv all day; play video games / play computer games; use my phone in bed / look at my phone in bed
    check my phone all the time / look at my phone constantly; waste time / waste my time; spend too much money / overspend
    snore / snore at night; grind my teeth; lie / tell lies; gossip / gossip about others; swear / curse / use bad words
    get angry / lose my temper; cry / cry so easily; be jealous / feel jealous; be lazy / be so lazy; be late / come late
    think about my ex; stalk my ex online; compare myself to others; daydream / dream during the day; skip classes / miss classes
    eat at night / eat late at night; sleep too much / oversleep; drink coffee; gamble / play for money; bully others / bully people
web
    get more followers / gain followers / increase my followers; get more views / increase my views; get more likes
    get more traffic to my website / increase traffic to my website / drive more traffic to my site / bring visitors to my website
    promote my website / advertise my website; sell products online / sell things online; buy things online safely
    start a youtube channel / create a youtube channel; delete a youtube channel; grow a youtube channel; monetize a youtube channel
    post a question; delete a question; edit a question / change a question; see who viewed my profile / find out who viewed my profile
    block someone / block a person; unblock someone / unblock a person; report someone; mute someone; find someone's email address
    hide my profile; verify my account / get my account verified; change my username / get another username; upload a photo; delete a photo
    read deleted messages; send an anonymous email / send an email anonymously; track a phone number / trace a phone number; block a phone number
    write a good answer; get rid of spam / stop getting spam; unsubscribe from emails / stop getting emails; rank higher on google / get a higher rank on google
"""
"""Kinds, and in each things to do, set apart by ";", with other wordings of the same set apart by "/"."""

TAILS = """
quickly / fast / in a short time / as fast as possible / as quickly as possible; slowly / little by little
without exercise / without exercising / with no exercise; without spending money / without money / for free / at no cost
at home / from home; in india / in the indian context; in the us / in the usa / in america; in the uk / in britain; in canada; in germany
as a beginner / if i am a beginner / being a beginner; as an expert; as a student / if i am a student / while being a student
in a month / in one month / within a month / in 30 days; in a week / in one week / within a week / in 7 days; in a year / in one year / within a year
in 2016; in 2017; in winter / during winter; in summer / during the summer; at night / during the night; in the morning / every morning
naturally / in a natural way / by natural means; with medicine / by taking medicine; online / on the internet / over the internet; in person
after 40 / after the age of 40 / when i am over 40; at 16 / at the age of 16 / as a 16 year old; before marriage / before getting married
on android / on an android phone / on my android phone; on an iphone / on my iphone / on iphone; on windows / on a windows pc; on a mac / on my mac
"""
"""What may stand at the end of a question, and change it."""

ALIKE = """
learn / teach; learn to / teach someone to; buy / sell; buy / rent; start / stop; gain / lose; delete / deactivate; delete / archive
cancel / delay; cancel / postpone; cancel / change; increase / measure; reduce / measure; prevent / treat; prevent / cure; avoid / treat
get into / get out of; apply for / extend; find / lose; join / leave; send / receive; install / update; install / remove
write / publish; write / read; make / clean; cook / freeze; build / destroy; open / close; borrow / lend; invest in / borrow for
quit / keep; save / spend; make friends / keep friends; make / buy; hide / find; block / mute; block / report; upload / edit
improve / test; improve / check; download / upload; learn / forget; speak / understand; speak / read; become / hire; become / marry
best / cheapest; best / worst; best / most popular; best / fastest; best / first; best / oldest; good / cheap; price / size; price / weight; cost / worth
why / how; how / when; how / where; how long / how much; how much / how many; who / when; where / when; what / who; can / should; should / must
before / after; during / after; with / without; for beginners / for experts; for men / for women; for kids / for adults; at home / at work
symptoms / causes; causes / treatment; symptoms / treatment; benefits / risks; benefits / side effects; advantages / disadvantages
history / future; difference / similarity; meaning / origin; inventor / owner; salary / age; average / highest; average / minimum
shipped / delivered; ordered / delivered; paid / refunded; approved / rejected; lost / stolen; blocked / suspended; hired / fired
most people / some people; all / most; some / no; always / sometimes; can / can't; will / did; did / does; was / is; would / did
north / south; first / last; oldest / youngest; tallest / largest; largest / richest; founder / ceo; capital / population
temporarily / permanently; daily / weekly; monthly / yearly; indoors / outdoors; raw / cooked; left / right; public / private
"""
"""Words that look as if one could stand for the other, and ask for something else."""
