"""Ways to ask of a thing: of each group all templates ask the same, and those of two groups do not."""

from __future__ import annotations

__all__ = ["FRAMES_OF_THINGS"]

FRAMES_OF_THINGS = """
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
price-at n
    what is the price of {n} {p}
    how much does {n} cost {p}
    what does {n} cost {p}
    how much is {n} {p}
    {p} how much does {n} cost
"""
"""Lines of a name and a slot, and below each its templates: ``n`` is a noun with what belongs to it ("the capital of france"), ``p`` a place or time ("in germany")."""
