"""Ways to ask general questions, of places, work and study: all wordings of a group ask the same, those of two groups do not."""

from __future__ import annotations

__all__ = ["ASKED_OF_THE_WORLD"]

ASKED_OF_THE_WORLD = """
learn-it skill_n
    how (do|can|should|could) (i|you|we|one) learn {n}
    how to (learn|study|master) {n}
    what('s| is) (the best|a good|the most effective) way to (learn|study|master) {n}
    how (do|should|can) i (start|begin) (learning|with|studying) {n}
    where (do|should) i (start|begin) if i want to learn {n}
    (i want to|i'd like to|i would like to) learn {n}, (how|where) (do|should) i (start|begin)
    (any|what are some) (tips|advice|suggestions) (for|on) learning {n}
    what (should|can) i do to learn {n}
    how (can|does) (a beginner|someone|a person) learn {n}
how-long-learn skill_n
    how long does it take to (learn|master|become good at) {n}
    how much time (do i need|does it take|is needed) to (learn|master) {n}
    how (quickly|fast|soon) can (i|one|you) learn {n}
    in how many (weeks|months) can i learn {n}
teach-it skill_n
    how (do|can|should) i teach {n} (to someone|to others|to people)
    what('s| is) the best way to teach {n}
    how is {n} (best |)taught
teacher skill_n
    where can i find a (teacher|tutor|good teacher) (for|of) {n}
    how do i find (a|a good) {n} (teacher|tutor)
    (who can|who could) teach me {n}
improve-it skill_n activity
    how (do|can|could|should) (i|you|one) (improve|get better at|become better at|improve in) {n}
    how to (improve|get better at|become better at) {n}
    what('s| is) the best way to (improve|get better at) {n}
    what (can|should) i do to (improve|get better at|become good at) {n}
    (any|what are some) (tips|ways) (to improve|for getting better at) {n}
best-course skill_n
    what('s| is) the best (course|class) (on|for|in) {n}
    which course is (the best|best|good) for (learning |){n}
    can you (recommend|suggest) a (good |)(course|class) (on|for|in) {n}
hard-it skill_n degree job
    how (hard|difficult|tough) is {n}
    is {n} (hard|difficult|tough) (to learn|)
    is it (hard|difficult) to (learn|do|get into) {n}
become.how job
    how (do|can|should|could) (i|you|one|someone) become {n}
    how to become {n}
    what (do|should|must) (i|you|one) (need to |have to |)do to become {n}
    what('s| is) the best way to become {n}
    (i want to|i would like to|my dream is to) (be|become) {n}, (what should i do|how do i do that|where do i start)
    what (steps|path) (should i take|leads|does one take) to become {n}
    what does it take to become {n}
become.qualification job
    what (qualifications|degree|education|studies) (do i need|does one need|are needed|are required) to (be|become) {n}
    what (should|must|do) i (study|have to study|need to study) to (be|become) {n}
    which (degree|education) (is needed|do i need) (to be|for being) {n}
salary job
    how much (does|can|do) {n} (earn|get paid)
    what('s| is) the (salary|average salary|pay|income) of {n}
    what does {n} earn
    how much money does {n} (make|earn)
    what salary (does {n} get|can {n} expect)
work-of job
    what does {n} (actually |really |)do
    what (is|are) the (job|work|duties|tasks|responsibilities) of {n}
    what does {n} do (all day|at work|every day)
    what is the (daily work|typical day) of {n}
good-career job
    is (being|it good to be|working as) {n} a good (career|job|choice)
    should i become {n}
    is (being|becoming) {n} (worth it|a good career choice)
    would you recommend (being|becoming) {n}
life.as job
    what('s| is) it like (to be|being) {n}
    what is the life of {n} like
    how is (life|it) as {n}
    how does it feel to be {n}
visit place
    what (are|is) (the best|some of the best|some good|the top) (places|sights|things|place) to (see|visit) in {n}
    what (should|can|must) (i|you|one) (see|visit) in {n}
    which places (should i|are worth|to) (visit|visiting|see) in {n}
    what is (worth seeing|there to see) in {n}
    where should (i|tourists|we) go in {n}
when-visit place
    when is (the best|a good|the right) (time|season|month) to (visit|go to|travel to) {n}
    what('s| is) the best (time|season|month) (to visit|to travel to|for visiting) {n}
    when should (i|one) (visit|go to|travel to) {n}
    in which (month|season) should i (visit|go to) {n}
safe-place place
    is {n} (safe|dangerous) (for tourists|to visit|for visitors|)
    is it safe to (visit|travel to|go to) {n}
    how (safe|dangerous) is {n} (for tourists|)
cost-live place
    how (expensive|costly) is (it to live|living|life) in {n}
    what('s| is) the cost of living in {n}
    how much (money |)(do i need|does it cost|does one need) to live in {n}
    is it expensive to live in {n}
move-to place
    how (can|do) i (move|emigrate|immigrate) to {n}
    what (do i need|is needed|is required) to (move|emigrate) to {n}
    how (hard|easy) is it to move to {n}
    (i want|i would like) to (move|emigrate) to {n}, what (should|must) i do
work-in place
    how (can|do) i (get|find) a job in {n}
    how to (get|find) (a job|work) in {n}
    what('s| is) the best way to (get|find) (a job|work) in {n}
    (i want to|i would like to) work in {n}, how do i find a job
visa place
    do i need a visa (for|to enter|to visit) {n}
    is a visa (required|necessary|needed) (for|to enter|to visit) {n}
    how (do|can) i get a visa for {n}
food-of place
    what (food|dishes|dish) is {n} (famous|known) for
    what (do people|should i) eat in {n}
    what is (the|a) (typical|traditional|famous) (food|dish) (of|in) {n}
known-for place company
    what is {n} (famous|known|well known) for
    what are the things {n} is (famous|known) for
    for what is {n} (famous|known)
live-in place
    what('s| is) it like to live in {n}
    how is (life|living) in {n}
    what is life in {n} like
    how does it feel to live in {n}
work-at company
    what('s| is) it like to work (at|for) {n}
    how is it to work (at|for) {n}
    how does it feel (to work|working) (at|for) {n}
    is {n} a good (company|place) to work (at|for|)
job-at company
    how (do|can) i get (a job|hired|an interview) (at|by|with) {n}
    how to get (a job|hired) (at|by) {n}
    what (should|can) i do to get (a job|hired) (at|by) {n}
    what does it take to get (a job|hired) (at|by) {n}
admitted degree
    how (do|can) i get (into|admitted to|accepted to|admission to) {n}
    what (do i need|is required|does it take) to get (into|admission to) {n}
    what are the requirements (for|to get into) {n}
scope degree
    what (can|could) (i|you|one) do with {n}
    what (jobs|careers) (can i|does one) (get|have) (with|after) {n}
    what (are|is) the (career|job) (options|prospects|opportunities) (after|with) {n}
    what (should|can) i do after {n}
exam-prep exam
    how (do|should|can|could) (i|you|one) (prepare|study|get ready) for {n}
    how to (prepare|study|get ready) for {n}
    what('s| is) the best (way to prepare|way to study|preparation|strategy) for {n}
    what (should|can) i do to (pass|prepare for|do well in) {n}
    (any|what are some) tips (for|on) (preparing for|passing) {n}
exam-date exam
    when (is {n}|is {n} held|does {n} take place)
    what (is|'s) the (date|day) of {n}
    on (what|which) (day|date) is {n}
exam-hard exam
    how (hard|difficult|tough) is {n}
    is {n} (hard|difficult|tough|easy)
    what is the difficulty of {n}
exam-score exam
    what is (a good|an average|the passing) score (in|on|for) {n}
    (what|which) score do i need (in|on) {n}
    how many points do i need to pass {n}
"""
"""Lines of a name and the kinds of things (`matters.MATTERS`), and below each its wordings.

``(a|b)`` is a choice, ``{n}`` a thing, ``{m}`` another of its kind.
"""
