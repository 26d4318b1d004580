"""What people ask of assistants: groups of ways to say the same, with the sorts of things that may be named in them."""

from __future__ import annotations

__all__ = ["COMMANDS", "IDLE_WORDS", "KINDS", "THINGS"]

THINGS: dict[str, list[str]] = {
    name: values.split(", ")
    for name, values in {
        "device": "light, lights, lamp, fan, heating, heater, television, tv, radio, air conditioner, vacuum cleaner, "
        "robot, oven, coffee machine, speaker, plug, wemo plug, blinds, kettle, dishwasher, alarm, camera",
        "room": "kitchen, bedroom, living room, bathroom, hall, garage, office, dining room, basement, garden, attic, study",
        "colour": "red, blue, green, yellow, pink, purple, white, orange, warm white",
        "day": "today, tomorrow, monday, tuesday, wednesday, thursday, friday, saturday, sunday, this week, next week, "
        "this weekend, tonight, next month, this afternoon, tomorrow morning, on friday night, next year",
        "hour": "six am, seven am, eight pm, noon, midnight, five o'clock, half past nine, 3 pm, 10 am, 7:30, quarter to eight",
        "city": "london, paris, boston, chicago, new york, berlin, tokyo, seattle, madrid, rome, sydney, texas, spain, "
        "ohio, france, denver, dallas, cairo, nairobi",
        "genre": "jazz, rock, pop, blues, classical, country, hip hop, eighties, nineties, folk, metal, reggae, techno",
        "artist": "adele, madonna, queen, mozart, the beatles, drake, coldplay, elvis, bach, shakira, nina simone, abba",
        "food": "pizza, sushi, pasta, curry, tacos, burgers, thai food, chinese food, steak, noodles, salad, soup, bread",
        "person": "john, mary, my mother, my boss, anna, my brother, peter, my wife, david, my sister, susan, bob",
        "event": "meeting, appointment, birthday, dentist appointment, party, lunch, interview, flight, doctor's appointment, "
        "conference, deadline, concert, exam",
        "list": "shopping list, grocery list, to do list, wish list, packing list, playlist",
        "item": "milk, eggs, cheese, apples, batteries, bread, coffee, sugar, toilet paper, tomatoes, chicken, soap",
        "topic": "politics, sports, football, the election, technology, science, business, the economy, celebrities, weather",
        "weather": "rain, snow, be sunny, be cold, be hot, be windy, be cloudy, be foggy, be warm, be humid, storm, freeze",
        "media": "song, movie, book, album, show, podcast, game, audiobook, soundtrack, painting, saga, series",
        "title": "the hobbit, hotel california, dark side, the great escape, night train, winter dreams, blue river, "
        "the long road, summer wine, stranger days, silent hill, happy hour",
        "money": "dollars, euros, pounds, yen, rupees, pesos, francs",
        "degree": "a little, to fifty percent, to the maximum, to ten, by twenty percent, to level three, halfway",
        "meal": "breakfast, lunch, dinner, brunch, supper",
        "size": "2, 3, 4, 5, 6, eight, nine, seven, ten",
        "star": "one, two, three, four, five, zero",
    }.items()
}

COMMANDS: list[list[str]] = [
    [line.strip() for line in group.strip().splitlines()]
    for group in """
turn off the {device} in the {room}
turn the {device} off in the {room}
turn off the {room} {device}
switch off the {device} in the {room}
switch the {room} {device} off
shut off the {room} {device}
{room} {device} off
disable the {device} in the {room}
please turn {room} {device} off
can you turn off the {device} in my {room}
--
turn on the {device} in the {room}
turn the {device} on in the {room}
switch on the {room} {device}
{room} {device} on
start the {device} in the {room}
please turn on the {room} {device}
can you switch on the {device} in my {room}
--
turn off the {device}
switch off the {device}
turn the {device} off
{device} off please
can you turn the {device} off
i want the {device} off
--
turn on the {device}
switch on the {device}
turn the {device} on
{device} on please
could you start the {device}
i want the {device} on
--
change the {room} lights to {colour}
make the lights in the {room} {colour}
set the colour of the lights in the {room} to {colour}
set {room} lights to {colour}
turn the {room} lights {colour}
i want {colour} lights in the {room}
--
turn down the volume {degree}
lower the volume {degree}
reduce the volume {degree}
decrease the sound {degree}
make it quieter {degree}
--
turn up the volume {degree}
raise the volume {degree}
increase the volume {degree}
make it louder {degree}
--
dim the lights {degree}
lower the lights {degree}
make the lights darker {degree}
reduce the brightness of the lights {degree}
--
brighten the lights {degree}
make the lights brighter {degree}
raise the brightness of the lights {degree}
increase the light {degree}
--
what is the weather in {city} {day}
what's the weather like in {city} {day}
how is the weather {day} in {city}
weather in {city} {day}
tell me the weather forecast for {city} {day}
{day} what will the weather be in {city}
what will the weather conditions be like in {city} {day}
give me the forecast for {city} {day}
--
what is the weather {day}
what's the weather like {day}
how is the weather {day}
what is the forecast for {day}
tell me the weather for {day}
weather {day}
show me what the weather is going to be {day}
--
will it {weather} in {city} {day}
is it going to {weather} {day} in {city}
should i expect it to {weather} in {city} {day}
tell me if it will {weather} in {city} {day}
do you know whether it will {weather} {day} in {city}
--
will it {weather} {day}
is it going to {weather} {day}
tell me if it will {weather} {day}
is it supposed to {weather} {day}
--
what is the temperature in {city} {day}
how hot is it in {city} {day}
temperature in {city} {day}
tell me the temperature {day} in {city}
--
play {genre} music
play some {genre}
put on some {genre} music
i want to hear {genre}
i'd like to listen to {genre} music
start playing {genre} songs
please play music from {genre}
--
play {artist}
play songs by {artist}
play music by {artist}
put on some {artist}
i want to listen to {artist}
i would like to hear {artist}
play something from {artist}
play a track by {artist}
--
play the {media} {title} by {artist}
play {artist}'s {media} {title}
i want to hear the {media} {title} by {artist}
start {title} the {media} by {artist}
--
find the {media} {title}
search for the {media} {title}
look for a {media} called {title}
show me the {media} {title}
where can i find the {media} {title}
look up the {title} {media}
get me the {media} named {title}
i am looking for the {title} {media}
--
rate the {media} {title} {star} stars
give the {media} {title} {star} stars
give {star} stars to the {media} {title}
{title} the {media} gets {star} stars
i rate {title} {star} stars
--
set an alarm for {hour} {day}
set my alarm {day} for {hour}
wake me up at {hour} {day}
i need an alarm at {hour} {day}
create an alarm for {day} at {hour}
alarm {day} at {hour}
please set up an alarm for {hour} {day}
--
cancel my alarm for {hour}
delete the alarm for {hour}
remove the {hour} alarm
turn off my {hour} alarm
get rid of my alarm at {hour}
--
remind me about the {event} {day}
set a reminder for the {event} {day}
create a reminder about my {event} {day}
remind me {day} of my {event}
give me a reminder for the {event} {day}
--
add a {event} with {person} {day} at {hour}
schedule a {event} with {person} {day} at {hour}
put a {event} with {person} on my calendar for {day} at {hour}
create a {event} {day} at {hour} with {person}
set up a {event} with {person} for {hour} {day}
make a {event} at {hour} {day} with {person}
--
delete the {event} with {person} {day}
cancel my {event} with {person} {day}
remove the {event} with {person} from my calendar {day}
clear {day}'s {event} with {person}
--
when is my {event} with {person}
what time is the {event} with {person}
tell me when my {event} with {person} is
at what time do i have the {event} with {person}
--
what events do i have {day}
what is on my calendar {day}
show me my events for {day}
do i have anything {day}
what's on my schedule for {day}
list my appointments {day}
--
add {item} to my {list}
put {item} on my {list}
add {item} to the {list}
include {item} in my {list}
i need {item} on my {list}
--
remove {item} from my {list}
delete {item} from the {list}
take {item} off my {list}
erase {item} from my {list}
--
what is on my {list}
read me my {list}
show me the {list}
tell me what's on my {list}
list the contents of my {list}
--
book a table for {size} at a {food} restaurant in {city} {day}
reserve a table for {size} {day} at a {food} place in {city}
make a reservation for {size} people at a {food} restaurant in {city} for {day}
i need a table for {size} in {city} {day} at a {food} restaurant
get me a spot for {size} at a {food} place in {city} {day}
find a {food} restaurant in {city} for a party of {size} {day}
--
order {food} for {meal}
i want to order {food} for {meal}
get me some {food} for {meal}
please order some {food} for {meal}
--
find a {food} recipe
how do i make {food}
show me a recipe for {food}
i want to cook {food}
how is {food} prepared
tell me how to cook {food}
what is the recipe of {food}
--
what is the latest news about {topic}
tell me the latest news on {topic}
give me updates on {topic}
any news about {topic}
what's happening in {topic}
what are the recent {topic} headlines
show me {topic} news
--
send an email to {person} about the {event}
email {person} about the {event}
write {person} an email regarding the {event}
compose a mail to {person} concerning the {event}
--
do i have any new emails from {person}
have i got any new email from {person}
check if {person} has sent me an email
did {person} email me
are there new mails from {person}
--
what time is it in {city}
tell me the time in {city}
current time in {city}
what is the time now in {city}
what's the time in {city} right now
--
how many {money} are there in a hundred {money2}
convert a hundred {money2} to {money}
what is a hundred {money2} worth in {money}
a hundred {money2} in {money}
change one hundred {money2} into {money}
--
how do i get to {city} from {city2}
directions from {city2} to {city}
give me directions to {city} from {city2}
how can i travel from {city2} to {city}
--
book a flight from {city} to {city2} {day}
i need a flight to {city2} from {city} {day}
find me a flight leaving {city} for {city2} {day}
get a plane ticket from {city} to {city2} {day}
--
how far is {city} from {city2}
what is the distance between {city} and {city2}
how many miles is it from {city2} to {city}
distance from {city} to {city2}
--
when does the next train to {city} leave {day}
what time is the next train for {city} {day}
{day} when is the next train going to {city}
next train to {city} {day}
--
who is {artist}
tell me about {artist}
give me information on {artist}
what do you know about {artist}
--
tell me a joke about {topic}
say something funny about {topic}
do you know a joke about {topic}
make me laugh with a joke on {topic}
--
what song is this
what is the name of this song
which song is playing
what's the song that is playing right now
--
what movies are playing in {city} {day}
which films are on {day} in {city}
show me movie times in {city} {day}
what is showing at the cinema in {city} {day}
--
add the {media} {title} to my {genre} playlist
put {title} on my {genre} playlist
add this {media} {title} to the playlist {genre}
--
how much does {food} cost in {city}
what is the price of {food} in {city}
what do they charge for {food} in {city}
--
how many calories are in {food}
what is the calorie count of {food}
number of calories in {food}
calories in {food}
""".split("--")
]

IDLE_WORDS = (
    "please {}; {} please; {} now; {} right now; can you {}; could you {}; i want you to {}; hey {}; ok {}; "
    "{} for me; {} thanks; {} thank you; olly {}; alexa {}; hi {}; just {}; i'd like you to {}; would you {}; kindly {}"
).split("; ")
"""What may stand around an order."""

KINDS: list[list[str]] = [
    line.split(", ")
    for line in """
today, tomorrow, yesterday, tonight, now, this week, next week, this weekend, this month, next month, last week, last month
monday, tuesday, wednesday, thursday, friday, saturday, sunday
january, february, march, april, may, june, july, august, september, october, november, december
morning, afternoon, evening, night, noon, midnight, weekend
kitchen, bedroom, living room, bathroom, garage, office, hall, basement, garden, dining room, house
red, blue, green, yellow, white, black, pink, orange, purple, brown, gray
all, some, most, every, each, only, any, mostly, many, few, several, none
may, might, will, must, should, can, could, definitely, probably, certainly, possibly
seventies, eighties, nineties, sixties, fifties
hot, hotter, hottest, warm, cold, colder, coldest, cool
good, better, best, bad, worse, worst, great, funny, nice
big, bigger, biggest, small, smaller, smallest, large, largest, tall, tallest, long, longest, short, shortest
increase, decrease, double, maintain, stop, start, change
first, second, third, last, next, previous, latest, oldest, newest, current, original
daily, weekly, monthly, yearly, annual, hourly
new, old, recent, upcoming, past, future, modern, ancient, young
list, email, calendar, alarm, reminder, playlist, note, message, event
song, album, artist, playlist, movie, book, podcast, game, show, video, singer, band
breakfast, lunch, dinner, brunch, supper, dessert, snack
john, mary, david, susan, peter, anna, paul, lisa, mark, karen
mother, father, brother, sister, wife, husband, son, daughter, friend, boss, uncle, aunt
london, paris, boston, chicago, new york, berlin, tokyo, seattle, madrid, rome, los angeles, texas, california
india, china, france, germany, japan, russia, canada, mexico, brazil, spain, england, america, australia
english, french, spanish, german, chinese, japanese, italian, indian, american, british, mexican, thai
head, assistant, deputy, senior, junior, chief, vice
coach, manager, player, captain, referee, owner, president, director, leader
city, town, village, country, state, province, region, capital, county
dog, cat, horse, bird, fish, cow, sheep, rabbit, snake
phone, laptop, computer, tablet, television, camera, printer, watch
credit card, debit card, gift card, bank account, savings account, checking account
minutes, hours, days, weeks, months, years, seconds
one, two, three, four, five, six, seven, eight, nine, ten, twenty, fifty, hundred
dollars, euros, pounds, yen, rupees
miles, kilometers, meters, feet, inches, centimeters
weather, temperature, humidity, wind, forecast, pollution
show, find, delete, add, move, copy, rename, send, read, play, stop, pause, save
buy, sell, rent, borrow, return, repair, replace, order, cancel, track
high, low, average, total, minimum, maximum, median
north, south, east, west, central
always, never, sometimes, usually, often, rarely
spicy, sweet, sour, salty, vegan, vegetarian, gluten free, healthy
science, history, math, biology, chemistry, physics, geography, economics
cause, treatment, symptom, cure, prevention, diagnosis, risk
husband, wife, partner, boyfriend, girlfriend
facebook, instagram, twitter, youtube, whatsapp, gmail, google, amazon, netflix, spotify
python, java, javascript, c++, rust, go, ruby, php
excel, word, powerpoint, outlook, photoshop
""".strip().splitlines()
]
"""Words of a kind: one for another makes another question."""
