"""Ways to ask general questions, of things: all wordings of a group ask the same, those of two groups do not."""

from __future__ import annotations

__all__ = ["ASKED_OF_THINGS"]

ASKED_OF_THINGS = """
what concept illness drug event degree
    what (is|'s) {n}
    what (exactly |)is (meant by |){n}
    what does {n} (mean|refer to)
    what (is|'s) the (meaning|definition) of {n}
    (can|could) (you|someone) explain (to me |)what {n} is
    (define|explain) {n}
    how (would|do|can) you (define|explain) {n}
    what do (you|people) mean by {n}
    explain {n} (in simple words|in simple terms|to me)
    what is {n} (in simple words|in simple terms|exactly)
    i (don't|do not) (understand|know) what {n} is
how-works concept gadget app drug event
    how does {n} (actually |really |)work
    (can|could) (you|someone) explain how {n} works
    how exactly does {n} (work|function)
    what('s| is) the (mechanism|principle|idea) behind {n}
    (explain|describe) how {n} (works|functions)
    what is the way {n} works
why-exists concept
    why (does|did) {n} (happen|occur|take place|come about)
    what (causes|caused|brought about|led to|leads to) {n}
    what (is|was|are|were) the (cause|causes|reason for|reasons for|main cause of|reasons behind) (of |){n}
    what('s| is| was) (responsible for|behind) {n}
    what are the factors that (lead|led) to {n}
who-started concept app company gadget
    who (invented|created|came up with|started|founded|developed) {n}
    who (is|was) the (inventor|creator|founder|person behind) (of |){n}
    by whom was {n} (invented|created|founded|developed)
    who was the first (person |)to (invent|create|come up with) {n}
    whose idea was {n}
start.when concept app company gadget event
    when was {n} (invented|created|founded)
    when did {n} (start|begin|come into being)
    in (what|which) year (was {n} (invented|created|founded)|did {n} (start|begin))
    what year did {n} (start|begin)
    since when does {n} exist
    when did {n} first (appear|start)
important concept event degree activity
    why is {n} (so |)(important|significant|relevant)
    what('s| is) the (importance|significance|relevance) of {n}
    what makes {n} (so |)(important|significant)
    why does {n} matter
    how important is {n}
    why should (we|anyone|people) care about {n}
example concept
    what (are|is) (some|an|a few|good|the best|a good) (examples|example) of {n}
    (can|could) you give (me |)(an example|some examples|a few examples|examples) of {n}
    (give|show) (me |)(an example|some examples) of {n}
    what would be an example of {n}
used-for concept gadget drug app
    what('s| is| are) {n} used for
    what (is|are) the (use|uses|purpose|application|applications) of {n}
    what (do|can) (people|you|we|one) use {n} for
    (where|for what) is {n} used
    why do (we|people) use {n}
start.history concept event place company activity
    what('s| is) the (history|origin|origins|story) of {n}
    how did {n} (start|begin|originate|come about)
    where does {n} (come from|originate)
    what is the (history|story) behind {n}
    can you tell me (about |)the history of {n}
future concept company app job gadget
    what('s| is) the future of {n}
    what does the future (look like|hold) for {n}
    what will {n} (look|be) like in the future
    how do you see the future of {n}
    does {n} have a future
    what is the future scope of {n}
which-best gadget app degree place job course
    what('s| is) the best {n}
    which (is the best {n}|{n} is the best|{n} is best)
    which {n} (should|would) (i|you|one) (choose|pick|take|go for|recommend)
    what (would|do) you (recommend as the|consider the|think is the) best {n}
    can you (recommend|suggest) (a good|the best) {n}
    (i am|i'm) looking for (a good|the best) {n}, (any suggestions|what do you suggest|what do you recommend)
    what is (the top|a really good) {n}
which-cheap gadget course app
    what('s| is) the cheapest {n}
    which {n} is the cheapest
    where (do|can) i find the cheapest {n}
    which {n} costs the least
    what {n} has the lowest price
price gadget course app drug
    how much (does|is|would) {n} (cost|be)
    what('s| is) the (price|cost) of {n}
    what does {n} cost
    how (expensive|costly) is {n}
    how much (do i|would i|must i|does one) (have to |)pay for {n}
    what (price|amount) (is|do they charge) for {n}
where-buy gadget drug food
    where (can|do|should|could) (i|you|one) (buy|get|purchase|find) {n}
    where is {n} (sold|available|for sale)
    (which|what) (store|shop|shops|stores) (sell|sells|has|have) {n}
    what('s| is) (the best|a good) place to (buy|get|purchase) {n}
    where do they sell {n}
    is there a (shop|store|place) (that sells|where i can buy) {n}
sell gadget
    where can (i|one) sell {n}
    how (do|can|should) i sell {n}
    what('s| is) the best (way|place) to sell {n}
    who (buys|would buy) used {n}
repair gadget
    how (do|can|should) (i|you|one) (fix|repair|mend) {n}
    how to (fix|repair) {n}
    (my|the) {n} is broken, how do i (fix|repair) it
    what('s| is) the best way to (fix|repair) {n}
    how (do|can) i get {n} (fixed|repaired)
clean gadget
    how (do|can|should) (i|you|one) clean {n}
    how to clean {n}
    what('s| is) the best way to clean {n}
    what (should|do|can) i use to clean {n}
lifespan gadget
    how long does {n} (usually |normally |)(last|live|hold)
    what is the (lifespan|life expectancy|life) of {n}
    after how many years should i replace {n}
worth.buying gadget app course degree
    is {n} (really |)worth (it|the money|the price|buying|getting)
    is it worth (it to get|getting|paying for|spending money on) {n}
    should i (buy|get|spend money on|pay for) {n}
    is {n} (a good buy|good value|a waste of money)
popular app company gadget activity place
    why is {n} (so |)(popular|famous|successful|well known)
    what makes {n} (so |)(popular|famous|successful)
    what('s| is) the reason (for the popularity of {n}|{n} is so popular)
    why do so many people (like|love) {n}
    how did {n} (become|get) (so |)(popular|famous|successful)
hated app company place
    why do (so many |some |)people (hate|dislike) {n}
    why is {n} (so |)(hated|disliked|unpopular)
    what is (wrong with|so bad about) {n}
    what('s| is) the reason people (hate|don't like) {n}
expensive gadget place course
    why is {n} so (expensive|costly|pricey)
    what makes {n} so (expensive|costly)
    why does {n} cost so much
    what('s| is) the reason {n} (is so expensive|costs so much)
free app course
    is {n} (free|free of charge)
    (can|could) i (get|use|have) {n} for free
    does {n} cost (anything|money)
    do i have to pay (for|to use) {n}
    (is there|are there) a free (version of|way to get) {n}
safe-to-use app drug company place
    is {n} (safe|trustworthy|reliable) (to use|)
    can (i|one|you) trust {n}
    how (safe|reliable|trustworthy) is {n}
    is it safe to (use|trust) {n}
alternatives app gadget drug
    what('s| is| are) (a good|the best|some good|some|the) (alternative|alternatives) to {n}
    what can i use instead of {n}
    is there (anything|something|an app) (like|similar to|other than) {n}
    (what|which) (things|options) are (similar to|like) {n}
account app
    how (do|can) i (create|open|make|set up) (an|a new) account (on|with|for) {n}
    how to (create|open|sign up for) (an account on |){n}
    how do i (sign up|register) (for|on|with) {n}
    what do i need to (sign up for|open an account on) {n}
delete-account app
    how (do|can) i (delete|remove|erase|permanently delete) my {n} account
    how to (delete|remove|get rid of) my {n} account
    (i want to|i would like to) delete my account (on|with) {n}
    what are the steps to delete (my|a) {n} account
deactivate-account app
    how (do|can) i (deactivate|disable|temporarily close) my {n} account
    how to (deactivate|disable) my {n} account
    i want to deactivate my account on {n} for a while
account.recover app
    how (do|can) i (recover|get back|restore|regain access to) my {n} account
    how to (recover|get back|restore) my {n} account
    i lost access to my {n} account, how do i get it back
    (what can i do|what to do) to get my {n} account back
account.password app
    how (do|can) i (reset|recover) my {n} password
    (i forgot|i have forgotten|i lost) my {n} password, (what do i do|how do i get in)
    what (should|can) i do if i (forgot|forget) my {n} password
    how to (reset|recover) (a|the|my) (forgotten |)password (on|for) {n}
change-password app
    how (do|can) i (change|update) my {n} password
    how to (change|update) (the|my) password (on|of|for) {n}
    where (do|can) i change my {n} password
account.hacked app
    my {n} account (was|has been|got) hacked, what (should|can) i do
    what (should|can) i do if (my|someone hacked my) {n} account (is hacked|)
    how do i know if my {n} account (was|has been) hacked
make-money-app app
    how (does|do) {n} (make|earn) (money|its money)
    what('s| is) the (business|revenue) model of {n}
    where does {n} get its money from
    how is {n} making money
best-books skill_n concept event
    what (are|is) (some|the best|good|some good|the best|a good) (books|book) (on|about|for) {n}
    (which|what) book (should i read|is best|is good) (on|about|to learn about) {n}
    can you (recommend|suggest) (a|some|a good) (books|book) (on|about) {n}
    i want to read about {n}, which book is good
best-videos skill_n concept event
    what are (some|the best|good) (videos|youtube channels|channels) (on|about|for) {n}
    which (videos|youtube channels|channels) are (good|best) (on|about|for) {n}
    can you (recommend|suggest) (a video|videos|channels) (on|about) {n}
opinion concept place company app activity event
    what do (you|people) think (of|about) {n}
    what('s| is| are) your (opinion|view|thoughts|take|views) (of|on|about) {n}
    how do you (feel|think) about {n}
difference concept gadget app degree illness job food drug
    what('s| is| are) the (main |)(difference|differences) between {n} and {m}
    what('s| is) the (main |)difference between {m} and {n}
    how (is|are) {n} different (from|to|than) {m}
    how does {n} differ from {m}
    how (do|can) (i|you|we) (distinguish|tell) {n} from {m}
    in what (way|respect) (is|are) {n} (different from|unlike) {m}
    {n} (vs|versus) {m}: what('s| is) the difference
better.which gadget app degree food place job company drug
    (which|what) is better, {n} or {m}
    (which|what) is better: {m} or {n}
    is {n} or {m} (better|the better one)
    (which|which one) (should|would) (i|you) (choose|pick|take|prefer), {n} or {m}
    {n} (vs|versus) {m}, which (one |)is better
    should i (choose|go for|take) {n} or {m}
    between {n} and {m}, which (one |)is better
better.why gadget app degree food place company drug
    why is {n} better than {m}
    what makes {n} better than {m}
    in what way is {n} better than {m}
    what('s| is) the reason {n} is better than {m}
better.is gadget app degree food place company drug
    is {n} (really |)better than {m}
    do you think {n} is better than {m}
    would you say (that |){n} is better than {m}
    is {n} superior to {m}
affects concept illness drug food activity event
    how does {n} (affect|influence|impact) {m}
    what('s| is) the (effect|influence|impact) of {n} on {m}
    what (effect|influence|impact) does {n} have on {m}
    how is {m} (affected|influenced) by {n}
related concept illness
    (how|in what way) are {n} and {m} (related|connected|linked)
    what('s| is) the (relationship|relation|connection|link) between {n} and {m}
    is there (a|any) (connection|link|relation) between {n} and {m}
exists concept
    is {n} (real|true|a real thing|a myth)
    does {n} (really |actually |)exist
    is there (really |)such a thing as {n}
facts concept event place company animal
    what are (some|a few) (interesting|fun|amazing|surprising) facts about {n}
    tell me (some|a few|something) interesting (facts |)about {n}
    what (is|are) (interesting|something interesting) (about|to know about) {n}
"""
"""Lines of a name and the kinds of things (`matters.MATTERS`), and below each its wordings.

``(a|b)`` is a choice, ``{n}`` a thing, ``{m}`` another of its kind.
"""
