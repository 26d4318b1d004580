"""Ways to ask: of each group all templates ask the same, and those of two groups do not.

Slots: ``v`` a phrase that begins with a verb ("reset my password"), ``g`` the same as "resetting my password", ``n`` a
noun with what belongs to it ("the capital of france"), ``s`` several ("running shoes"), ``m`` a second noun, ``p`` a
place or time with its preposition ("in germany").
"""

from __future__ import annotations

__all__ = ["GROUPS", "SLOTS"]

_TEXT = """
how v
    how do i {v}
    how can i {v}
    how to {v}
    how can one {v}
    how do you {v}
    how should i {v}
    how could i {v}
    how would i {v}
    how do we {v}
    how does one {v}
    what is the best way to {v}
    what's the best way to {v}
    what is a good way to {v}
    what are some good ways to {v}
    what are the ways to {v}
    what are some ways to {v}
    which is the best way to {v}
    what should i do to {v}
    what do i need to do to {v}
    what steps should i take to {v}
    what is the process for {g}
    how do i go about {g}
    can you tell me how to {v}
    could you show me how to {v}
    please explain how to {v}
    i want to know how to {v}
    i need help {g}
    i need to know how i can {v}
    any tips on how to {v}
    can someone explain how i can {v}
    is there a way to {v} and if so how
why-should v
    why should i {v}
    what is the reason to {v}
    what are the reasons to {v}
    why would i {v}
    why would anyone {v}
    give me a reason to {v}
should v
    should i {v}
    is it a good idea to {v}
    would it be a good idea to {v}
    is it wise to {v}
    is {g} a good idea
    do you think i should {v}
    would you recommend {g}
worth v
    is it worth {g}
    is {g} worth it
    is it worthwhile to {v}
possible v
    is it possible to {v}
    can i {v}
    am i able to {v}
    is there any way to {v}
    can one {v}
    would it be possible to {v}
    is {g} possible
    do you know if i can {v}
    i would like to know whether it is possible to {v}
allowed v
    am i allowed to {v}
    is it legal to {v}
    is {g} permitted
    is it permitted to {v}
when v
    when should i {v}
    what is the best time to {v}
    when is the best time to {v}
    when is a good time to {v}
where v
    where can i {v}
    where is the best place to {v}
    what is the best place to {v}
    what is a good place to {v}
    where should i go to {v}
    do you know where i can {v}
duration v
    how long does it take to {v}
    how much time does it take to {v}
    how much time will it take to {v}
    how much time is needed to {v}
    how long will it take to {v}
    what is the time required to {v}
cost-of-doing v
    how much does it cost to {v}
    what does it cost to {v}
    what is the cost of {g}
    how expensive is it to {v}
    how much money do i need to {v}
    what will it cost me to {v}
benefit-of-doing v
    what are the benefits of {g}
    what are the advantages of {g}
    what are the pros of {g}
    what do i gain by {g}
    what is the benefit of {g}
drawback-of-doing v
    what are the disadvantages of {g}
    what are the drawbacks of {g}
    what are the cons of {g}
    what are the downsides of {g}
risk v
    is it safe to {v}
    is {g} safe
    is it dangerous to {v}
feel v
    what is it like to {v}
    what does it feel like to {v}
    how does it feel to {v}
    what is the experience of {g} like
happen v
    what happens if i {v}
    what will happen if i {v}
    what would happen if i {v}
    what would be the result if i {v}
    what are the consequences if i {v}
avoid v
    how do i avoid {g}
    how can i avoid {g}
    what should i do to avoid {g}
    what is the best way to avoid {g}
stop v
    how do i stop {g}
    how can i stop {g}
    what is the best way to stop {g}
    how can i quit {g}
    how do i give up {g}
need v
    what do i need to {v}
    what is required to {v}
    what are the requirements to {v}
    what does one need to {v}
tool v
    what is the best app to {v}
    which app is best to {v}
    what is the best app for {g}
    which app should i use to {v}
first v
    what should i do before i {v}
    what should i do before {g}
after v
    what should i do after i {v}
    what should i do after {g}
    what should i do once i {v}
do v
    {v}
    please {v}
    can you {v}
    could you {v}
    could you please {v}
    i want you to {v}
    i need you to {v}
    i'd like you to {v}
    {v} please
    would you {v}
    {v} for me
what n
    what is {n}
    what's {n}
    what exactly is {n}
    what is {n} exactly
    can you explain what {n} is
    could you tell me what {n} is
    what does {n} mean
    what is meant by {n}
    what do you mean by {n}
    what is the meaning of {n}
    what is the definition of {n}
    define {n}
    explain {n}
    i want to know what {n} is
    do you know what {n} is
how-works n
    how does {n} work
    how {n} works
    can you explain how {n} works
    what is the working principle of {n}
    explain the working of {n}
    what is the mechanism behind {n}
used-for n
    what is {n} used for
    what is the use of {n}
    what are the uses of {n}
    what is the purpose of {n}
    what do people use {n} for
    what can {n} be used for
made n
    how is {n} made
    how do they make {n}
    how is {n} produced
    what is the process of making {n}
made-of n
    what is {n} made of
    what is {n} composed of
    what does {n} consist of
    what are the components of {n}
who n
    who invented {n}
    who was the inventor of {n}
    who is the inventor of {n}
    {n} was invented by whom
    who is credited with inventing {n}
when-invented n
    when was {n} invented
    in which year was {n} invented
    what year was {n} invented
    when did someone invent {n}
owner n
    who owns {n}
    who is the owner of {n}
    {n} is owned by whom
price n
    how much does {n} cost
    what is the price of {n}
    what does {n} cost
    how much is {n}
    what is the cost of {n}
    how expensive is {n}
    how much do i have to pay for {n}
buy n
    where can i buy {n}
    where can i get {n}
    where do they sell {n}
    where is {n} sold
    what is a good place to buy {n}
    what is the best place to buy {n}
    where to buy {n}
    where do i find {n} for sale
rent n
    where can i rent {n}
    where can i hire {n}
    what is a good place to rent {n}
where n
    where is {n}
    where is {n} located
    what is the location of {n}
    in which place is {n}
    where can {n} be found
history n
    what is the history of {n}
    how did {n} begin
    what is the origin of {n}
    where does {n} come from
    what are the origins of {n}
learn n
    how do i learn {n}
    how can i learn {n}
    what is the best way to learn {n}
    how should i start learning {n}
    how do i start learning {n}
    how can i learn {n} on my own
    what is a good way to learn {n}
    how to learn {n}
best-book n
    what is the best book on {n}
    which is the best book on {n}
    what are the best books on {n}
    which book is best for {n}
    which book should i read on {n}
    what are some good books about {n}
best-site n
    what is the best website for {n}
    which website is best for {n}
    what are the best websites for {n}
    which are some good sites for {n}
best-course n
    what is the best course on {n}
    which course is best for {n}
    which is the best online course for {n}
better n
    how can i get better at {n}
    how do i improve at {n}
    how can i improve my {n}
    how do i become better at {n}
    what is the best way to improve my {n}
    how should i improve my {n}
    what can i do to get better at {n}
job n
    how do i get a job in {n}
    how can i find a job in {n}
    what is the best way to get a job in {n}
career n
    is {n} a good career
    is {n} a good career choice
    should i choose {n} as a career
    is a career in {n} a good choice
important n
    why is {n} important
    what is the importance of {n}
    why does {n} matter
    what makes {n} important
    why is {n} so important
bad n
    why is {n} bad
    what makes {n} bad
    what is wrong with {n}
popular n
    why is {n} so popular
    why is {n} popular
    what makes {n} so popular
    what is the reason {n} is so popular
expensive n
    why is {n} so expensive
    why is {n} expensive
    what makes {n} so expensive
    why does {n} cost so much
cause n
    what causes {n}
    what are the causes of {n}
    what is the cause of {n}
    what are the reasons for {n}
    why does {n} happen
cure n
    how do i get rid of {n}
    how can i get rid of {n}
    what is the best way to get rid of {n}
    how do you get rid of {n}
    how can i remove {n}
symptom n
    what are the symptoms of {n}
    what are the signs of {n}
    how do i know if i have {n}
effect n
    what are the effects of {n}
    what is the effect of {n}
    what effects does {n} have
    what impact does {n} have
    what is the impact of {n}
side-effect n
    what are the side effects of {n}
    does {n} have any side effects
    does {n} have side effects
benefit n
    what are the benefits of {n}
    what are the advantages of {n}
    what are the pros of {n}
    how is {n} beneficial
    what is good about {n}
drawback n
    what are the disadvantages of {n}
    what are the drawbacks of {n}
    what are the cons of {n}
    what are the downsides of {n}
opinion n
    what do you think of {n}
    what do you think about {n}
    what is your opinion on {n}
    what's your opinion of {n}
    what are your thoughts on {n}
    what are your views on {n}
    how do you feel about {n}
future n
    what is the future of {n}
    what does the future hold for {n}
    what is the future scope of {n}
example n
    what is an example of {n}
    what are some examples of {n}
    can you give me some examples of {n}
    give examples of {n}
    could you provide examples of {n}
type n
    what are the types of {n}
    what are the different types of {n}
    what kinds of {n} are there
    how many types of {n} are there
legal n
    is {n} legal
    is {n} allowed by law
    is {n} lawful
real n
    is {n} real
    does {n} really exist
    does {n} exist
    is there such a thing as {n}
free n
    is {n} free
    does {n} cost anything
    can i get {n} for free
    is {n} free of charge
about n
    tell me about {n}
    give me information about {n}
    what can you tell me about {n}
    i want to learn about {n}
    give me some information on {n}
long n
    how long is {n}
    what is the length of {n}
tall n
    how tall is {n}
    what is the height of {n}
    how high is {n}
big n
    how big is {n}
    what is the size of {n}
    how large is {n}
heavy n
    how heavy is {n}
    what is the weight of {n}
    how much does {n} weigh
old n
    how old is {n}
    what is the age of {n}
best-one n
    what is the best {n}
    what's the best {n}
    which is the best {n}
    which {n} is the best
    which {n} is best
    what would be the best {n}
worst-one n
    what is the worst {n}
    which is the worst {n}
    which {n} is the worst
cheapest-one n
    what is the cheapest {n}
    which is the cheapest {n}
    which {n} is the cheapest
best-ones s
    what are the best {s}
    which are the best {s}
    what are some of the best {s}
    what are some good {s}
    which {s} are the best
    can you recommend some good {s}
    what are the top {s}
    what are your favorite {s}
there s
    are there any {s} {p}
    are there {s} {p}
    do they have {s} {p}
    do {s} exist {p}
number s
    how many {s} are there {p}
    what is the number of {s} {p}
    how many {s} exist {p}
    what is the total number of {s} {p}
best-ones-at s
    what are the best {s} {p}
    which are the best {s} {p}
    {p} what are the best {s}
    what are some good {s} {p}
    where are the best {s} {p}
price-at n
    what is the price of {n} {p}
    how much does {n} cost {p}
    what does {n} cost {p}
    how much is {n} {p}
    {p} how much does {n} cost
difference nm
    what is the difference between {n} and {m}
    what's the difference between {m} and {n}
    what are the differences between {n} and {m}
    how is {n} different from {m}
    how does {n} differ from {m}
    how do {m} and {n} differ
    what is the difference between {m} and {n}
    difference between {n} and {m}
    what distinguishes {n} from {m}
    how are {n} and {m} different
similar nm
    what are the similarities between {n} and {m}
    how are {n} and {m} alike
    how are {n} and {m} similar
    what do {n} and {m} have in common
    in what way is {n} similar to {m}
relation nm
    what is the relationship between {n} and {m}
    how are {n} and {m} related
    how is {n} related to {m}
    what is the connection between {m} and {n}
versus nm
    which is better {n} or {m}
    which is better {m} or {n}
    what is better {n} or {m}
    is {n} better or {m}
    is {n} or {m} better
    {n} vs {m} which is better
    which one is better {n} or {m}
    {n} or {m} which one should i choose
better-than nm
    is {n} better than {m}
    do you think {n} is better than {m}
    would you say {n} is better than {m}
worse-than nm
    is {m} better than {n}
    do you think {m} is better than {n}
    would you say {m} is better than {n}
why-better-than nm
    why is {n} better than {m}
    what makes {n} better than {m}
    in what way is {n} better than {m}
why-worse-than nm
    why is {m} better than {n}
    what makes {m} better than {n}
    in what way is {m} better than {n}
into nm
    how do i convert {n} to {m}
    how can i convert {n} to {m}
    how do i turn {n} into {m}
    what is the best way to convert {n} to {m}
    how to convert {n} into {m}
out-of nm
    how do i convert {m} to {n}
    how can i convert {m} to {n}
    how do i turn {m} into {n}
    what is the best way to convert {m} to {n}
    how to convert {m} into {n}
affect nm
    how does {n} affect {m}
    what is the effect of {n} on {m}
    what effect does {n} have on {m}
    how is {m} affected by {n}
    what impact does {n} have on {m}
    what is the impact of {n} on {m}
affected nm
    how does {m} affect {n}
    what is the effect of {m} on {n}
    what effect does {m} have on {n}
    how is {n} affected by {m}
    what impact does {m} have on {n}
    what is the impact of {m} on {n}
go nm
    how do i get from {n} to {m}
    what is the best way to get from {n} to {m}
    how can i travel from {n} to {m}
    how do i get to {m} from {n}
    how to get to {m} from {n}
come nm
    how do i get from {m} to {n}
    what is the best way to get from {m} to {n}
    how can i travel from {m} to {n}
    how do i get to {n} from {m}
    how to get to {n} from {m}
"""


def _groups() -> tuple[dict[str, list[str]], dict[str, str]]:
    groups: dict[str, list[str]] = {}
    slots: dict[str, str] = {}
    name = ""
    for line in _TEXT.strip().splitlines():
        if line.startswith(" "):
            groups[name].append(line.strip())
        else:
            name, slots[name] = line.split()
            groups[name] = []
    return groups, slots


GROUPS, SLOTS = _groups()
"""Templates by group, and for each group which kind of slots it has: v, n, s or nm."""
