"""Ways to ask general questions, of doing something: all wordings of a group ask the same, those of two groups do not."""

from __future__ import annotations

__all__ = ["ASKED_OF_DOING"]

ASKED_OF_DOING = """
how.do health money skill tech social study career home travel web
    how (do|can|could|should|would) (i|you|we|one) {v}
    how to {v}
    what (is|'s|would be) (the best|a good|the right|the most effective) (way|method) to {v}
    what are (some|some of the best|the best|good|a few) (ways|methods) to {v}
    which is the best way to {v}
    what('s| is) the best way (of|for) {g}
    what (should|can|must) (i|one|a person) do (to|in order to) {v}
    what (do|would) i (need|have) to do to {v}
    (is there|are there) (a|any|some) (good |)(way|ways) to {v}
    how (do|should|would) (i|you|one) go about {g}
    how (can|could|does) (someone|a person|one|anyone) {v}
    can (you|someone|anybody) (tell|show) me how to {v}
    (i want to|i'd like to|i would like to|i am trying to|i need to) {v}, how (do|can) i do (it|that|this)
    (any|do you have any|what are your|what are some) (tips|advice|suggestions) (for|on) {g}
    (any|what are some|what are the best|some good) tips to {v}
    how is it possible to {v}
    what (helps|would help) (me |)to {v}
    what are the steps to {v}
    (help me|please help me|i need help to) {v}
    what do (people|you|others) do to {v}
    i (have no idea|don't know|am not sure) how to {v}
    ways to {v}
    best way to {v}
like.why-do health money skill social study career travel bad
    why do (people|we|some people|so many people|humans) {v}
    why (is it that|does it happen that) (people|we|some people|so many people) {v}
    what makes people {v}
    what('s| is) the reason (that |)(people|we|some people) {v}
    for what reason do people {v}
    what (drives|leads|causes|motivates) people to {v}
    why are (people|so many people|some people) {g}
    how come (people|so many people|some people) {v}
    what are the reasons (for|behind) people {g}
good.why-should health skill money study career travel
    why should (i|you|we|one|anyone|people) {v}
    what('s| is) the (point|use) of {g}
    what are (the|some|good) reasons (to|why one should) {v}
    why (would|should) (someone|a person|anyone) {v}
    is there (any|a|a good) reason to {v}
    why is it (important|useful|good|necessary) to {v}
    why bother {g}
advise.should health money skill study career travel home
    should (i|you|we|one) {v}
    is it (a good idea|wise|smart|sensible|advisable) to {v}
    would it be (a good idea|wise|smart) to {v}
    (is|would) {g} (be |)(a good idea|a good decision|the right thing|a smart move)
    do you think (i should|one should|it is a good idea to) {v}
    would you (recommend|advise|suggest) {g}
    (i am|i'm) thinking (of|about) {g}, is (it|that) a good idea
    would you advise me to {v}
advise.worth health skill money study career travel
    is it (really |)worth (it to {v}|{g})
    is {g} (really |)worth (it|the time|the effort|the trouble)
    is it worthwhile to {v}
    does it (really |)pay off to {v}
    does {g} (really |)pay off
possible.doing health money skill tech study career travel home web
    is it (really |)possible to {v}
    can (i|you|one|someone|a person|anyone|we) (really |actually |)(ever |){v}
    is there (any|a) (possibility|chance) (of {g}|to {v})
    is {g} possible
    would it be possible (for me |)to {v}
    will (i|one) be able to {v}
    could (i|someone|a person) {v}
how-long health skill money study career tech home
    how long (does|will|would) it take (me |one |someone |)to {v}
    how much time (does|will|would) it take (me |one |)to {v}
    how (much time|long) do i need to {v}
    how many (days|weeks|hours) does it take to {v}
    what is the (average|usual) time (it takes |needed |)to {v}
    in how much time can (i|one) {v}
    how (fast|quickly|soon) can (i|you|one|someone) {v}
how-cost health skill tech study career travel home
    how much (does|will|would) it cost (me |)to {v}
    what (does|will|would) it cost (me |)to {v}
    what('s| is) the (cost|price) (of {g}|to {v})
    how (expensive|costly) is it to {v}
    how much money (do i need|does it take|is needed|is required) to {v}
    what (would|do) i have to pay to {v}
    is it expensive to {v} and how much does it cost
hard.how skill study career money travel
    how (hard|difficult|tough) is it to {v}
    how (hard|difficult) is {g}
    what is the (difficulty|level of difficulty) of {g}
    how (hard|difficult) would it be (for someone |)to {v}
hard.is skill study career money travel
    is it (hard|difficult|tough|challenging) to {v}
    is {g} (hard|difficult|tough|challenging)
    does it take a lot of effort to {v}
good.benefits health skill money study career travel
    what (are|would be) (the|some|some of the|the main) (benefits|advantages|pros|upsides) of {g}
    what('s| is) the (benefit|advantage) of {g}
    what (benefits|advantages) does {g} (have|bring|offer)
    how (does|can|would) {g} (benefit|help) (me|you|us|a person|someone)
    what (do i|does one|do you) (gain|get) (from|by|out of) {g}
    in what way is {g} (good|beneficial|useful)
    what is (good|so good) about {g}
drawbacks health skill money study career travel
    what (are|would be) (the|some|some of the|the main) (drawbacks|disadvantages|cons|downsides) of {g}
    what('s| is) the (drawback|disadvantage|downside) of {g}
    what (is bad|is wrong) (about|with) {g}
    (does|would) {g} have (any|some) (drawbacks|disadvantages|downsides)
    what do you lose by {g}
risk.doing health money tech travel home
    is it (safe|risky|dangerous|harmful) to {v}
    how (safe|risky|dangerous) is it to {v}
    is {g} (safe|dangerous|harmful|risky)
    what are the (risks|dangers) of {g}
    are there (any|some) (risks|dangers) (in|to|of|when) {g}
effect.doing health bad skill
    what (are|would be) the effects of {g}
    what (happens|will happen|would happen) (to you |to me |)(if|when) (i|you|we|one) {v}
    what (is|would be) the (effect|result|outcome|impact) of {g}
    what does {g} do to (you|your body|the body|a person|people)
    how does {g} (affect|change|influence) (you|me|people|us|a person)
    what (are|will be) the consequences (of {g}|if i {v})
feel skill travel social career bad
    what('s| is) it like to {v}
    what (does|would) it feel like to {v}
    how does it feel to {v}
    what('s| is) the (experience|feeling) of {g} (like|)
    how (is|was) your experience of {g}
    can you (describe|share) what it is like to {v}
need.doing skill study career travel tech home
    what (do|will|would) (i|you|one|we) need to {v}
    what('s| is) (needed|required|necessary) to {v}
    what are the (requirements|prerequisites) (to {v}|for {g})
    what does (it take|one need|a person need) to {v}
    which things do i need to {v}
before.know skill study career money travel health
    what should (i|you|one|people) (know|consider|keep in mind|remember) before {g}
    what (is|are the things) (important |)to (know|consider) before (you {v}|{g})
    what (things |)do i need to know before i {v}
    (is there anything|what is there) i should know before {g}
after-doing skill study career travel health
    what should (i|you|one) do after {g}
    what (can|do) (i|you|one) do (after|once) i {v}
    what comes (next |)after {g}
    what is the next step after {g}
when-do health skill money study career travel home
    when (should|do|must) (i|you|we|one) {v}
    when is (the best|the right|a good|the ideal) time to {v}
    what('s| is) (the best|the right|a good|the ideal) (time|moment) (to {v}|for {g})
    at (what|which) (time|point) should (i|one) {v}
where-do skill study home travel
    where (can|should|could|do) (i|you|we|one) {v}
    where is (the best|a good) place to {v}
    what('s| is) (the best|a good) place (to {v}|for {g})
    (which|what) places are (good|best) (to {v}|for {g})
    do you know (a place|any place|somewhere) to {v}
    where would i go to {v}
stop bad
    how (do|can|could|should) (i|you|we|one) (stop|quit|give up) {g}
    how to (stop|quit|give up) {g}
    what('s| is) (the best|a good|an effective) way to (stop|quit|give up) {g}
    what (should|can) (i|one) do to (stop|quit|give up) {g}
    (i can't|i cannot|i can not|i want to) stop {g}, what (should|can) i do
    how (can|do) i get (rid of the habit|out of the habit) of {g}
    (any|what are some) (tips|ways) (to stop|for stopping) {g}
    how (do|can) i (break|kick) the habit of {g}
    how can i keep myself from {g}
    (is there|are there) (a way|any ways) to stop {g}
how.start bad skill
    how (do|can|should) (i|you|one) (start|begin) {g}
    how to (start|begin) {g}
    what('s| is) (the best|a good) way to (start|begin) {g}
    where (do|should) i (start|begin) (with |if i want to start ){g}
    how (do|can|would) i get started (with|in) {g}
fail.doing health skill study career money tech web
    why (can't|cannot|can not) (i|you) {v}
    why am i (not able|unable) to {v}
    what('s| is) the reason i (can't|cannot) {v}
    why is it not possible for me to {v}
    (i can't|i cannot|i am unable to|i'm not able to) {v}, what is wrong
    why do i fail to {v}
app tech skill study money health travel web
    what('s| is| are) the best (app|apps|application) (to {v}|for {g})
    (which|what) (app|application) (is best|is the best|should i use|can i use|works best) (to {v}|for {g})
    (is there|are there) (an app|any app|any apps|a good app) (to {v}|for {g}|that can {v})
    can you (recommend|suggest) (an|a good) app (to {v}|for {g})
book skill study money career health
    what('s| is| are) (the best|a good|some good|the best) (book|books) (to {v}|for {g}|about {g})
    (which|what) book (should i read|is best|would you recommend|is good) (to {v}|if i want to {v})
    can you (recommend|suggest) (a|a good|some) (book|books) (for {g}|to {v}|about {g})
website skill study career travel
    what('s| is| are) the best (website|site|websites|sites) (to {v}|for {g})
    (which|what) (website|site) (is best|is good|should i use) (to {v}|for {g})
    can you (recommend|suggest) a (good |)(website|site) (to {v}|for {g})
    (on which|from which) (website|site) can i {v}
how-many-people health skill money bad
    how many (people|persons|of us) {v}
    what (percentage|share|part) of (people|the population) {v}
    how common is it to {v}
    is it common to {v}
learn-age skill study travel career
    am i too old to {v}
    is it too late (for me |)to {v}
    (can i still|is it still possible to) {v} at my age
    at my age is it too late to {v}
    what age is too old to {v}
possible.alone skill study home money tech
    can i {v} (on my own|by myself|alone|without help)
    is it possible to {v} (on my own|by myself|alone|without any help)
    (do i need|must i have|is it necessary to have) (help|someone's help) to {v}
    can one {v} without (help|assistance)
must.doing health money study career travel home
    do i (have|need) to {v}
    must i {v}
    is it (necessary|mandatory|compulsory|required|obligatory) to {v}
    am i (required|obliged|forced) to {v}
allowed travel career money study
    am i (allowed|permitted) to {v}
    is it (legal|allowed|permitted|lawful) to {v}
    is {g} (legal|allowed|permitted|against the law)
    is it against the (law|rules) to {v}
before.mistake skill study career money travel
    what (are|mistakes are) the (most common|biggest|typical) mistakes (people make |)(when|in|while) {g}
    what mistakes (should i|to|do i have to) avoid (when|while|in) {g}
    which mistakes do people (make|commit) (when|while) {g}
    what do people (get|do) wrong when {g}
teach skill
    how (do|can|should) i teach (someone|somebody|another person|people|a friend) to {v}
    how (can|do|would) (you|one) teach (others|people|someone) (to {v}|how to {v})
    what('s| is) the best way to teach (someone|people|others) to {v}
    how to teach (someone|a person|people) to {v}
money-by skill career
    (can|could) (i|you|one|someone) (make|earn) money (by |from |){g}
    is it possible to (earn|make) (money|a living) (by|from|with) {g}
    can {g} (earn|make|bring) (me |you |)money
how.prepare study career travel
    how (do|should|can) (i|one) prepare (myself |)to {v}
    how to (prepare|get ready) to {v}
    what('s| is) the best (way to prepare|preparation) (to {v}|for {g})
    how (do|should) i get ready to {v}
    what (preparation|preparations) (is|are) (needed|necessary) to {v}
safely-alternative health money home tech bad
    what can (i|one) do instead of {g}
    what('s| is| are) (a good|the best|some good|an) (alternative|alternatives) to {g}
    what (else |)could i do (rather than|instead of) {g}
    is there (an|any|a good) alternative to {g}
fear skill travel social
    how (do|can) i (overcome|get over|conquer|lose) (my |the |)fear of {g}
    how to (overcome|get over|deal with) the fear of {g}
    what can i do about my fear of {g}
    (i am|i'm) (afraid|scared) of {g}, (how do i get over it|what can i do)
like.love skill travel social
    why do (you|people|so many people) (like|love|enjoy) {g}
    what do (you|people) (like|love|enjoy) about {g}
    what is (fun|enjoyable|so nice) about {g}
like.hate skill travel social study
    why do (people|you|so many people) (hate|dislike) {g}
    what do (you|people) (hate|dislike) about {g}
    what('s| is) (unpleasant|so bad) about {g}
"""
"""Lines of a name and the kinds of things done (`subjects.DOINGS`), and below each its wordings.

``(a|b)`` is a choice, ``{v}`` a thing to do, ``{g}`` doing it.
"""
