"""Ways to ask of doing something: of each group all templates ask the same, and those of two groups do not."""

from __future__ import annotations

__all__ = ["FRAMES_OF_DOING"]

FRAMES_OF_DOING = """
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
"""
"""Lines of a name and a slot, and below each its templates: ``v`` is a phrase that begins with a verb ("reset my password"), ``g`` the same as "resetting my password"."""
