"""First words of questions that lead in the same, and what people say around a question."""

from __future__ import annotations

__all__ = ["ASIDES", "EXCHANGED", "LEADS"]

LEADS: list[list[str]] = [
    [lead.strip() for lead in line.split(";")]
    for line in """
how do i; how can i; how to; how do you; how can you; how could i; how should i; how does one; how do we; how can we; what is the best way to; what's the best way to; (what is|what would be) a good way to; what (should|can|must) i do to; i (want|need|would like) to know how to; (can|could) you (tell|show) me how to; (can|could) you explain how to; please (tell|show) me how to; (what are|are there) (some|any) ways to; what do i (do|need to do) to; which is the best way to; (i'm|i am) trying to find out how to
why do; why is it that; what is the reason that; how come; (do you know|can you explain|can you tell me) why; for what reason do; (i wonder|i'd like to know) why; what makes it so that
can i; is it possible to; am i able to; could i; would i be able to; is it possible for me to; do you know if i can; is there (a|any) way to; will i be able to; (i'd like|i want) to know (if|whether) i can
can you; could you; would you; will you; please; can you please; could you please; i need you to; i want you to; i would like you to; i'd like you to; would you (please|kindly)
i want to; i'd like to; i would like to; i need to; i wish to; i am trying to; i'm trying to; help me; i am looking to; (i'm|i am) hoping to
where can i; where could i; where do i; do you know where i can; where is (a|the best) place to; what is a good place to; in (what|which) place can i; where (is it possible|would i go) to
is there; is there any; do you know if there is; i wonder if there is; (can|could) you tell me if there is; are you aware of
what happens if; what will happen if; what would happen if; what happens when; what (is|would be) the (result|consequence) if
tell me; please tell me; can you tell me; could you tell me; i want to know; i'd like to know; let me know; i need to know; would you tell me
how long does it take to; how much time does it take to; how long will it take to; how much time (do i need|is needed) to; how long would it take to
how much does it cost to; what does it cost to; what is the (cost|price) to; how expensive is it to; how much money does it take to
should i; is it a good idea to; do you think i should; would it be (wise|a good idea) to; (is it|would it be) advisable to; would you recommend (that i|i)
what is the difference between; what's the difference between; what are the differences between; difference between; (can|could) you explain the difference between; (i don't|i do not) understand the difference between
what is; what's; (do you know|tell me|can you tell me) what is; what exactly is; (please|) tell me what is
what are; (can you tell me|tell me|do you know) what are; what exactly are; (please |)list
what causes; what is the cause of; what are the causes of; what leads to; what is the reason for; what brings about
what kind of; what type of; what sort of; which kind of; which type of
in which year; what year; in what year; (do you know|can you tell me) in (what|which) year; during (what|which) year
who is; who's; (can you tell me|tell me|do you know) who is
who wrote; who is the author of; who was the author of; which (author|writer) wrote
who invented; who was the inventor of; who is the inventor of; who came up with; which (person|man) invented
how many; what is the number of; what number of; (do you know|can you tell me) how many
how far is; what is the distance to; how (many miles|many kilometers) away is; how long is the way to
explain; please explain; can you explain; could you explain; i need an explanation of; give (me |)an explanation of
describe; please describe; can you describe; could you describe; give (me |)a description of
name; list; give (me |)the names of; can you name; can you list
give me; i need; provide; provide me with; (can|could) you give me; i would like; please give me
what should i do if; what do i do if; what can i do if; what (must|am i supposed to) do if; what to do if; what should i do when
""".strip().splitlines()
]
"""One group a line; what follows the first words stays. Those with choices are not looked for in texts."""

EXCHANGED = [
    line.split("; ")
    for line in """
how do i; can i; where can i; how long does it take to; how much does it cost to; should i
what is; what causes; who is; how many
what happens if; what should i do if
why do; in which year
""".strip().splitlines()
]
"""Groups by their first words: one in place of another of a line makes another question that can still be read."""

ASIDES = (
    "i am new to this. {};sorry if this was asked before. {};just curious: {};i was wondering: {};quick question. {};"
    "serious question: {};{} i am just curious;{} any help is welcome;{} thanks in advance;hello everyone. {};"
    "i have a question. {};honestly, {};in your opinion, {};generally speaking, {};hey guys, {};{} please help;"
    "{} does anyone know;so, {};ok so {};and {};{} these days;nowadays {};{} in general;{} if i may ask"
).split(";")
"""What stands around a question and leaves it the same."""
