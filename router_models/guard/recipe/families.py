"""Questions written out: families that look alike, in which each line asks one thing in several wordings."""

from __future__ import annotations

__all__ = ["FAMILIES"]

FAMILIES = """
how far is the moon from the earth / what is the distance between the earth and the moon / how many kilometers away is the moon / what's the distance from here to the moon
how far is the sun from the earth / what is the distance between the earth and the sun / how many kilometers away is the sun
how big is the moon / what is the size of the moon / what is the diameter of the moon
how long does it take to get to the moon / how much time does a trip to the moon take / how many days does it take to fly to the moon

why do cats purr / what makes cats purr / what is the reason cats purr / why does a cat purr
why do cats hiss / what makes cats hiss / what is the reason a cat hisses
why do cats sleep so much / what is the reason cats sleep all day / why does my cat sleep so much
how do cats purr / how does a cat make its purring sound / by what means do cats purr

why is the ocean salty / what makes the sea salty / why is there salt in the sea / why does sea water taste salty
how salty is the ocean / how much salt is in sea water / what is the salt content of the sea
why is the ocean blue / what makes the sea look blue / why does sea water look blue
how deep is the ocean / what is the depth of the sea / how deep does the ocean get

what happens if the earth stops spinning / what would happen if the earth stopped rotating / if the earth stopped turning, what would happen
what happens if the moon disappears / what would happen if there were no moon / suppose the moon vanished, what would happen
what happens if the sun disappears / what would happen if the sun went out / if there were no sun, what would happen
why does the earth spin / what makes the earth rotate / what is the reason the earth turns

can humans live on mars / is it possible for people to live on mars / could people survive on mars / would life on mars be possible for humans
can humans live on the moon / is it possible for people to live on the moon / could people survive on the moon
when will humans go to mars / when will the first people land on mars / in what year will people reach mars
is there life on mars / does life exist on mars / are there living things on mars

do aliens exist / are aliens real / is there life on other planets / are there extraterrestrial beings
do ghosts exist / are ghosts real / is there such a thing as a ghost
have you ever seen a ghost / did you ever see a ghost / has anyone here seen a ghost
why do people believe in aliens / what makes people believe in aliens / for what reason do people think aliens are real

why do we dream / what makes us dream / why do people have dreams / what is the reason for dreaming
why do we forget our dreams / why can't i remember my dreams / how come people don't remember their dreams
what do dreams mean / do dreams have a meaning / what is the meaning of our dreams
how can i have lucid dreams / how do you get lucid dreams / what is a way to dream lucidly

how do planes fly / what keeps a plane in the air / how does an airplane stay in the air / how is a plane able to fly
how do helicopters fly / what keeps a helicopter in the air / how is a helicopter able to fly
why do planes crash / what makes planes crash / what are the reasons for plane crashes
how safe are planes / is it safe to fly / is flying safe

who is the best football player of all time / who is the greatest football player ever / which football player is the best in history
who is the best basketball player of all time / who is the greatest basketball player ever / which basketball player is the best in history
who is the richest football player / which football player has the most money / what football player is the wealthiest
who is the best football coach / which football coach is the best / who is the greatest coach in football

what is the best movie of 2016 / which is the best film of 2016 / what was the best movie in 2016
what is the best movie of 2015 / which is the best film of 2015 / what was the best movie in 2015
what is the worst movie of 2016 / which is the worst film of 2016 / what was the worst movie in 2016
what is the best book of 2016 / which is the best book of 2016 / what was the best book in 2016
what are some movies with a surprising ending / which films end with a twist / can you recommend movies with a twist at the end

what is the best way to lose ten pounds / how can i lose ten pounds / how do i get rid of ten pounds
what is the best way to gain ten pounds / how can i gain ten pounds / how do i put on ten pounds
how long does it take to lose ten pounds / how much time do i need to lose ten pounds / how fast can one lose ten pounds
is it healthy to lose ten pounds in a week / is losing ten pounds in a week healthy / can i safely lose ten pounds in a week

how many calories should i eat a day / how many calories do i need per day / what is the right number of calories per day
how many calories do i burn a day / how many calories does a person burn per day / what number of calories do i burn daily
how much water should i drink a day / how much water do i need per day / what is the right amount of water per day
how much protein should i eat a day / how much protein do i need per day / what is the right amount of protein per day

why do i feel tired all the time / why am i always tired / what is the reason i am tired all the time / what makes me so tired every day
why do i feel sad all the time / why am i always sad / what is the reason i am sad all the time
why do i feel hungry all the time / why am i always hungry / what is the reason i am hungry all the time
how can i stop being tired all the time / what can i do against being tired all the time / how do i get over constant tiredness

what should i do if my dog eats chocolate / my dog ate chocolate, what do i do / what to do when a dog has eaten chocolate
is chocolate bad for dogs / is chocolate harmful to dogs / can chocolate harm a dog
is chocolate bad for cats / is chocolate harmful to cats / can chocolate harm a cat
how much chocolate can a dog eat / what amount of chocolate is safe for a dog / how much chocolate is too much for a dog

how do i tell my parents i failed / what is the best way to tell my parents that i failed / how should i tell my mother and father i failed
how do i tell my parents i am gay / what is the best way to come out to my parents / how should i come out to my parents
how do i tell my boss i quit / what is the best way to tell my boss that i am leaving / how should i tell my boss i am quitting
why do my parents think i failed / what makes my parents think that i failed / how come my parents believe i failed

how can i make my girlfriend happy / what can i do to make my girlfriend happy / what makes a girlfriend happy
how can i make my boyfriend happy / what can i do to make my boyfriend happy / what makes a boyfriend happy
how can i make my girlfriend jealous / what can i do to make my girlfriend jealous / what makes a girlfriend jealous
how do i know if my girlfriend loves me / what are the signs that my girlfriend loves me / how can i tell whether my girlfriend loves me
how do i know if my girlfriend is cheating / what are the signs that my girlfriend cheats / how can i tell whether my girlfriend is cheating on me

is it okay to date a coworker / is it fine to date someone from work / should one date a colleague / what do you think of dating a colleague
is it okay to date your boss / is it fine to date your boss / should one date one's boss
is it okay to date a friend's ex / is it fine to go out with a friend's ex / should one date the ex of a friend
how do i ask a coworker out / what is a good way to ask a colleague on a date / how can i ask out someone from work

how do i write a letter of recommendation / how should a recommendation letter be written / what is the way to write a reference letter
how do i ask for a letter of recommendation / what is the best way to ask someone for a reference letter / how should i request a recommendation letter
how do i write a letter of resignation / how should a resignation letter be written / what is the way to write a resignation letter
who should write my letter of recommendation / from whom should i get a reference letter / which people can write a recommendation letter for me

how do i get a refund / how can i get my money back / what do i do to get a refund / i want my money back, how do i get it
how do i exchange an item / how can i exchange something i bought / what do i do to swap an item for another
where is my refund / when will i get my refund / why hasn't my refund arrived yet
can i get a refund / is it possible to get my money back / am i able to get a refund

why was my payment declined / why did my payment not go through / what is the reason my payment was refused
why was my payment taken twice / why have i been charged two times / what is the reason i was charged twice
how do i cancel a payment / how can i stop a payment / what do i do to cancel a payment
when will my payment arrive / how long until my payment arrives / when does my payment get there

how do i track my parcel / how can i see where my parcel is / where can i track my package
how do i return my parcel / how can i send my parcel back / where can i return my package
my parcel did not arrive, what do i do / what should i do if my package never arrived / i have not received my parcel, what now
my parcel arrived damaged, what do i do / what should i do if my package is damaged / i received a damaged parcel, what now

what laptop should i buy for college / which laptop is best for a student / can you recommend a laptop for college / what is a good laptop for university
what laptop should i buy for gaming / which laptop is best for games / can you recommend a laptop for gaming
what phone should i buy for college / which phone is best for a student / can you recommend a phone for college
what bag should i buy for my laptop / which laptop bag is best / can you recommend a bag for a laptop

what is the best phone under 300 dollars / which phone is best below 300 dollars / can you suggest a good phone for less than 300 dollars
what is the best phone under 500 dollars / which phone is best below 500 dollars / can you suggest a good phone for less than 500 dollars
what is the best camera under 300 dollars / which camera is best below 300 dollars / can you suggest a good camera for less than 300 dollars
what is the best phone over 300 dollars / which phone is best above 300 dollars / can you suggest a good phone for more than 300 dollars

why does my phone get hot / what makes my phone hot / why is my phone overheating / what is the reason my phone heats up
why does my phone charge slowly / what makes my phone charge so slowly / why is charging my phone so slow
why does my laptop get hot / what makes my laptop hot / why is my laptop overheating
how do i cool down my phone / what can i do to make my phone cooler / how can i stop my phone from heating up

why is my internet so slow / what makes my internet slow / what is the reason my connection is so slow
why does my internet keep disconnecting / why does my connection drop all the time / what is the reason my internet keeps cutting out
how can i make my internet faster / how do i speed up my internet / what can i do for a faster connection
how fast is my internet / what is the speed of my internet connection / how do i find out my internet speed

how do i use two whatsapp accounts on one phone / can i have two whatsapp accounts on one phone / is it possible to run two whatsapp accounts on the same phone
how do i use one whatsapp account on two phones / can i have one whatsapp account on two phones / is it possible to run one whatsapp account on two phones
how do i know if someone blocked me on whatsapp / how can i tell that i was blocked on whatsapp / what are the signs that someone has blocked me on whatsapp
how do i block someone on whatsapp / how can i block a person on whatsapp / what do i do to block someone on whatsapp

which programming language should i learn first / what is the best first programming language / what programming language should a beginner start with / which language is best to start programming with
which programming language is used most / what is the most popular programming language / what language do most programmers use
which programming language pays best / what programming language has the highest salaries / which language makes the most money for programmers
which programming language is hardest / what is the most difficult programming language / what language is hardest to program in

what is the difference between a list and a tuple / how do lists differ from tuples / list vs tuple, what is the difference / how is a tuple different from a list
what is the difference between a list and a dictionary / how do lists differ from dictionaries / list vs dictionary, what is the difference
when should i use a tuple instead of a list / in which cases is a tuple better than a list / when is it better to use a tuple than a list
how do i turn a list into a tuple / how can i convert a list to a tuple / what is the way to make a tuple out of a list
how do i turn a tuple into a list / how can i convert a tuple to a list / what is the way to make a list out of a tuple

why do people hate mondays / what makes people dislike mondays / why are mondays so hated / what is the reason people don't like mondays
why do people love fridays / what makes people like fridays / why are fridays so loved
why do people hate pineapple on pizza / what makes people dislike pineapple on pizza / what is so bad about pineapple on pizza
why do people love pizza / what makes people like pizza so much / why is pizza so popular

why do people lie about their age / what makes people lie about how old they are / what is the reason people lie about their age
why do people lie in interviews / what makes people lie in job interviews / what is the reason people lie at interviews
how do i know someone's real age / how can i find out how old someone really is / what is a way to find out a person's true age
is it wrong to lie about my age / is lying about how old i am bad / should i not lie about my age

can you become a doctor without going to college / is it possible to be a doctor without a college degree / can a person without a college education become a doctor
can you become a programmer without going to college / is it possible to be a programmer without a college degree / can a person without a college education become a programmer
can you become rich without going to college / is it possible to get rich without a college degree / can a person without a college education get wealthy
should i go to college to become a programmer / do i need college to be a programmer / is a college degree needed for a programmer

what should i do after high school / what can i do when i finish high school / i am finishing high school, what should i do next
what should i do after college / what can i do when i finish college / i am finishing college, what should i do next
what should i study in high school / which subjects should i take in high school / what are the best subjects in high school
what should i do in the summer before college / how should i spend the summer before college / what is a good way to use the summer before college

what was your first job / what job did you have first / what did you do as your first job / which was the first job you had
what is your dream job / what job would you like most / which job do you dream of
what was your worst job / what is the worst job you ever had / which job did you like least
how did you find your first job / in what way did you get your first job / how did you get the first job you had

what is the most beautiful place in the world / which place on earth is the most beautiful / what is the most beautiful place on earth / where is the most beautiful place in the world
what is the most dangerous place in the world / which place on earth is the most dangerous / where is the most dangerous place in the world
what is the most beautiful place you have seen / which is the most beautiful place you ever visited / where is the most beautiful place you have been
what is the hottest place in the world / which place on earth is the hottest / where is the hottest place in the world

who will win the next election / which candidate will win the coming election / who do you think is going to win the next election
who won the last election / which candidate won the last election / who was the winner of the last election
who should i vote for in the next election / which candidate should i vote for / for whom should i vote in the coming election
when is the next election / on what date is the next election / when does the coming election take place

is it possible to travel through time / can people travel through time / is time travel possible / will time travel ever be possible
is it possible to travel faster than light / can anything travel faster than light / is travel faster than light possible
what would you do if you could travel through time / if time travel were possible, what would you do / what would you do with a time machine
where would you go if you could travel through time / which time would you visit with a time machine / if you had a time machine, where would you go

what is something everyone should know / what should every person know / what are things everyone should know / which things should every person know
what is something nobody knows / what does no one know / what are things nobody knows
what is something everyone should own / what should every person own / what are things everyone should have
what is something every beginner should know / what should all beginners know / what are things every beginner should know

how can i find out who called me / how do i know whose number called me / is there a way to see who called me / how to find the owner of a number that called me
how can i hide my number when i call / how do i call without showing my number / is there a way to call anonymously
how can i change my number / how do i get another number / is there a way to change my phone number
how can i stop unknown numbers from calling / how do i block unknown callers / is there a way to stop calls from unknown numbers

how can i get over my fear of flying / what can i do about my fear of flying / how do i stop being afraid of flying / i am scared of flying, how do i get over it
how can i get over my fear of spiders / what can i do about my fear of spiders / how do i stop being afraid of spiders
how can i get over my fear of death / what can i do about my fear of death / how do i stop being afraid of dying
why are people afraid of flying / what makes people fear flying / what is the reason people are scared of flying

what is the best thing about being a parent / what is the nicest part of having children / what do you like most about being a parent
what is the hardest thing about being a parent / what is the most difficult part of having children / what do you find hardest about being a parent
how do i become a better parent / what can i do to be a better parent / how can i be a better father or mother
when is the right time to become a parent / when should one have children / what is the best age to have children

which country has the most people / what is the country with the largest population / which country has the highest population / what country do the most people live in
which country has the fewest people / what is the country with the smallest population / which country has the lowest population
which country is the largest / what is the biggest country / which country has the largest area
which city has the most people / what is the city with the largest population / which city has the highest population

how many countries are there in africa / what is the number of countries in africa / how many african countries are there
how many countries are there in asia / what is the number of countries in asia / how many asian countries are there
how many people are there in africa / what is the population of africa / how many people live in africa
how many languages are spoken in africa / what is the number of languages in africa / how many african languages are there

when did humans learn to make fire / since when can people make fire / at what time in history did humans begin to make fire
how did humans learn to make fire / in what way did people find out how to make fire / how was the making of fire discovered
how do i make fire without matches / what is a way to light a fire without matches / how can one start a fire without matches
why did humans learn to make fire / what made people learn how to make fire / for what reason did humans begin to make fire

how does a credit card work / can you explain how credit cards work / what is the way a credit card works
how does a debit card work / can you explain how debit cards work / what is the way a debit card works
how do i get rid of credit card debt / what is the best way to pay off credit card debt / how can i pay off my credit card
what happens if i don't pay my credit card / what will happen if i do not pay my credit card bill / what are the consequences of not paying a credit card

how do i remove a scratch from my car / how can i get rid of a scratch on my car / what is the best way to fix a scratch on a car
how do i remove a scratch from my phone / how can i get rid of a scratch on my phone / what is the best way to fix a scratch on a phone
how do i remove a sticker from my car / how can i get rid of a sticker on my car / what is the best way to take a sticker off a car
how much does it cost to fix a scratch on a car / what does it cost to repair a car scratch / what is the price of fixing a scratch on a car

what is the easiest language to learn / which language is the easiest to learn / what language can be learned most easily / which is the easiest language
what is the hardest language to learn / which language is the hardest to learn / what language is most difficult to learn
what is the most useful language to learn / which language is the most useful to know / what language is the most useful
what is the easiest instrument to learn / which instrument is the easiest to learn / what instrument can be learned most easily

is it better to rent or to buy a house / should i rent or buy a home / which is better, buying or renting a house / renting or buying a house, what is better
is it better to buy or to build a house / should i buy or build a home / which is better, buying or building a house
is it better to sell or to rent out a house / should i sell or let my house / which is better, selling a house or renting it out
is it better to rent or to buy a car / should i rent or buy a car / which is better, buying or renting a car
"""
"""Families set apart by an empty line, the wordings of a line by "/"."""
