"""What general questions are about: things, by kind, with other names of the same."""

from __future__ import annotations

__all__ = ["MATTERS"]

MATTERS = """
concept
    inflation; deflation; unemployment; globalization; democracy; communism; capitalism; socialism; feminism; racism; nationalism; terrorism
    machine learning / ml; deep learning; artificial intelligence / ai; big data; cloud computing; blockchain; cryptocurrency; net neutrality
    quantum mechanics / quantum physics; string theory; dark matter; dark energy; antimatter; gravity; the big bang / the big bang theory; a black hole
    evolution; natural selection; photosynthesis; osmosis; diffusion; entropy; kinetic energy; potential energy; magnetism; relativity / the theory of relativity
    climate change; global warming; the greenhouse effect; acid rain; air pollution; water pollution; deforestation; renewable energy; nuclear energy
    karma; free will; consciousness; the meaning of life / the purpose of life; happiness; love; emotional intelligence; a placebo / the placebo effect
    object oriented programming / oop; functional programming; a database; an api; recursion; a neural network; version control; open source software
    supply and demand; opportunity cost; compound interest; a mortgage; a hedge fund; a mutual fund; the stock market; a recession; gdp / gross domestic product
    culture shock; peer pressure; the electoral college; a constitution; human rights; gender equality; the death penalty / capital punishment; gun control
    a solar eclipse; a lunar eclipse; a tsunami; an earthquake; a volcano; a tornado; a hurricane; the water cycle; plate tectonics; the northern lights
illness
    diabetes; type 2 diabetes; asthma; anemia; depression; anxiety; insomnia / sleeplessness; migraine / migraines; a headache / headaches; a fever
    the flu / influenza; a cold / the common cold; pneumonia; bronchitis; tuberculosis; malaria; dengue fever / dengue; typhoid; chickenpox; measles
    acne / pimples; eczema; psoriasis; dandruff; hair loss / losing hair; a rash; dry skin; oily skin; dark circles; stretch marks; athlete's foot
    high blood pressure / hypertension; low blood pressure / hypotension; high cholesterol; heart disease; a heart attack; a stroke; kidney stones; gallstones
    arthritis; back pain / pain in the back; neck pain; knee pain / pain in the knee; a sprained ankle; a broken arm; gout; sciatica; osteoporosis
    food poisoning; heartburn / acid reflux; constipation; diarrhea; bloating; nausea; an ulcer; lactose intolerance; celiac disease; hiccups; bad breath
    adhd / attention deficit disorder; autism; bipolar disorder; schizophrenia; ptsd / post traumatic stress disorder; ocd; panic attacks; dementia; vertigo
    a sore throat; an ear infection; a toothache / tooth pain; a cough; sinusitis; hay fever; snoring; a nosebleed; a sunburn; an iron deficiency
food
    green tea; black tea; coffee; milk; soy milk; red wine; beer; coconut oil; olive oil; butter; cheese; yogurt; honey; sugar; brown sugar; salt
    eggs; chicken; red meat; pork; fish; salmon; shrimp; tofu; rice; brown rice; pasta; bread; oatmeal; potatoes; sweet potatoes; beans; lentils
    apples; bananas; oranges; grapes; avocados; mangoes; pineapple; garlic; onions; ginger; spinach; broccoli; carrots; tomatoes; mushrooms; almonds
    peanuts; walnuts; dark chocolate; milk chocolate; energy drinks; diet soda; orange juice; lemon water; apple cider vinegar; protein shakes
drug
    ibuprofen; aspirin; paracetamol / acetaminophen; penicillin; amoxicillin; antibiotics; antidepressants; birth control pills / the pill; melatonin
    creatine; whey protein; steroids; vitamin c; vitamin d; vitamin b12; magnesium; zinc; iron tablets / iron supplements; fish oil; caffeine pills
    nicotine gum; marijuana / cannabis / weed; lsd; cortisone; insulin; statins; antihistamines; sleeping pills; probiotics; collagen; omega 3
gadget
    a laptop; a gaming laptop; a tablet; a smartphone; an android phone; an iphone; a camera; a dslr camera; a drone; a smartwatch; a fitness tracker
    a television / a tv; a projector; a sound bar; headphones; wireless headphones; earbuds; a microphone; a printer; a 3d printer; a scanner; a router
    a washing machine; a dishwasher; a refrigerator / a fridge; a microwave / a microwave oven; a vacuum cleaner; a robot vacuum; an air conditioner; an air purifier
    a bicycle / a bike; an electric bike / an e-bike; a motorcycle / a motorbike; a scooter; an electric car; a hybrid car; a tent; a backpack; a mattress
    a guitar; an electric guitar; a keyboard; a piano; a violin; a chess set; running shoes; hiking boots; a suit; a wedding dress; a wrist watch; sunglasses
    a hard drive; an ssd; a graphics card; a monitor; a mouse; a power bank; a coffee machine / a coffee maker; a blender; a rice cooker; an air fryer
app
    facebook; instagram; twitter; snapchat; whatsapp; telegram; quora; reddit; linkedin; pinterest; tinder; youtube; netflix; spotify; amazon prime
    uber; airbnb; paypal; gmail; yahoo mail; outlook; dropbox; google drive; skype; zoom; slack; discord; github; stack overflow; wordpress; tumblr
    photoshop; excel; duolingo; evernote; trello; steam; twitch; ebay; windows 10; google maps; siri; alexa; bitcoin; ethereum; wikipedia; coursera
company
    google; microsoft; apple; amazon; facebook; tesla; ibm; intel; samsung; sony; nokia; walmart; ikea; mcdonald's; starbucks; nike; adidas; toyota
    bmw; general motors; boeing; airbus; spacex; nasa; the world bank; goldman sachs; deloitte; accenture; infosys; tcs; oracle; cisco; adobe; uber; netflix
place
    india; china; japan; germany; france; italy; spain; canada; australia; brazil; mexico; russia; turkey; egypt; israel; iran; pakistan; sweden; norway
    switzerland; singapore; dubai; hong kong; thailand; vietnam; south korea; new zealand; south africa; kenya; iceland; ireland; portugal; greece
    london; paris; berlin; rome; new york / new york city / nyc; los angeles / la; san francisco; chicago; boston; toronto; sydney; tokyo; mumbai; delhi; bangalore; goa
job
    a doctor / a physician; a nurse; a lawyer / an attorney; a judge; a teacher; a professor; a pilot; a flight attendant; a police officer; a detective
    a software engineer / a software developer; a web developer; a data scientist; a data analyst; a hacker; a game developer; a graphic designer
    an architect; a civil engineer; a mechanical engineer; an accountant; an investment banker; an actuary; a financial analyst; a real estate agent
    an actor; a singer; a model; a writer / an author; a journalist; a photographer; a chef / a cook; a barista; a psychologist; a psychiatrist; a dentist
    a surgeon; a veterinarian / a vet; a pharmacist; a physical therapist; a firefighter; a soldier; an astronaut; a diplomat; a politician; a translator
    a project manager; a product manager; a consultant; a management consultant; a ceo; an entrepreneur; a personal trainer; a yoga teacher; a plumber; an electrician
degree
    an mba / a master of business administration; a bachelor's degree in computer science; a degree in economics; a degree in psychology; a degree in physics
    a law degree; a medical degree; a phd / a doctorate; a degree in mechanical engineering; a degree in civil engineering; a master's in data science
    a degree in philosophy; a degree in history; a degree in biotechnology; harvard; stanford; mit; oxford; cambridge; an ivy league school / an ivy league university
exam
    the sat; the gre; the gmat; the toefl; the ielts; the bar exam; the driving test / the driving exam; the cfa exam; the mcat; the lsat; the act
    the civil service exam; the math final; a chemistry exam / a chemistry test; a physics exam; the citizenship test; a job interview; a coding interview
course
    an online course; a programming course; a data science course; a digital marketing course; a photography course; a yoga course; a language course
    a coding bootcamp; a machine learning course; a graphic design course; a first aid course; a cooking class; a driving school; a summer camp; a gym membership
skill_n
    python; java; javascript; c++; sql; html; excel; photoshop; machine learning; data science; web development; ethical hacking / hacking; calculus; algebra
    statistics; physics; chemistry; organic chemistry; english; spanish; french; german; japanese; mandarin / mandarin chinese; korean; arabic; sign language
    the piano; the guitar; the drums; chess; poker; photography; drawing; painting; singing; dancing; cooking; knitting; swimming; karate; public speaking / speaking in public
    accounting; marketing; stock trading / trading stocks; economics; philosophy; creative writing; calligraphy; touch typing; meditation; carpentry; gardening
activity
    yoga; pilates; running; jogging; swimming; cycling; weight lifting / lifting weights; boxing; meditation; intermittent fasting; a keto diet / the keto diet; veganism
    social media; online dating; reading; traveling / travelling; volunteering; homeschooling; remote work / working from home; video gaming / gaming; gambling; hunting
    football / soccer; basketball; baseball; cricket; tennis; golf; hockey; rugby; skiing; surfing; hiking; camping; fishing; karaoke; crossfit
event
    world war i / the first world war; world war ii / the second world war; the cold war; the vietnam war; the american civil war; the french revolution; the russian revolution
    the great depression; the industrial revolution; the renaissance; the black death / the plague; the moon landing; the fall of rome / the fall of the roman empire
    the holocaust; the partition of india; the cuban missile crisis; the chernobyl disaster; the 2008 financial crisis; brexit; the arab spring; the olympics / the olympic games; the world cup
owned
    my account / the account; my subscription / the subscription; my membership; my appointment / the appointment; my order / the order; my ticket / the ticket; my card
    my credit card; my debit card; my reservation / my booking; my profile; my file / the file; my photos / my pictures; my notes; my contacts; my messages; my group; my channel
    my parcel / my package; my payment / the payment; my refund; my application / the application; my request; my insurance / my insurance policy; my contract; my invoice / my bill
    my licence / my license; my phone number; my email address; my password; my username; my website / my site; my blog; my playlist; my calendar; my database; my server
    my backup; my wallet; my domain; my printer; my laptop; my phone / my mobile phone; my router; my car; my house / my home; my visa; my passport; my loan; my mortgage
    an invoice; a meeting; a video; a document; a spreadsheet; a comment; a post; an api key; a certificate; a branch; a folder; a table; a user; a device; a session; a webhook
measure
    salary of a teacher / teacher salary; salary of an engineer / engineer salary; salary in berlin; salary in texas; temperature in july; temperature of the ocean
    price of a house / house price; price of gold / gold price; price of petrol / gas price; rent in paris; age of marriage; age to retire; height of a man; height of a woman; weight of a baby
    speed of a car; score in the exam / exam score; size of a class; size of a family; credit score; heart rate; blood pressure; cost of a wedding / wedding cost; cost of a visa
    city in the world; country in europe; building in the world; river in africa; mountain in asia; airport in the us; university in canada; way to travel; way to lose fat
    car on the market; phone on the market; laptop for students; camera for beginners; game of the year; song of the year; movie of all time; book of all time; language to learn
    job in the world; sport in the world; animal on earth; fruit for breakfast; exercise for the back; beach in spain; island in greece; hotel in rome; restaurant in lisbon; bank in the country
animal
    a cat / cats; a dog / dogs; a golden retriever / golden retrievers; a german shepherd / german shepherds; a rabbit / rabbits; a hamster / hamsters; a parrot / parrots
    an owl / owls; an eagle / eagles; a penguin / penguins; a shark / sharks; a dolphin / dolphins; a whale / whales; an octopus; a jellyfish; a lion / lions; a tiger / tigers
    a wolf / wolves; a fox / foxes; a bear / bears; a polar bear / polar bears; an elephant / elephants; a giraffe / giraffes; a horse / horses; a snake / snakes; a cobra / cobras
    a turtle / turtles; a crocodile / crocodiles; an alligator / alligators; a frog / frogs; a spider / spiders; a scorpion / scorpions; a bee / bees; a wasp / wasps; an ant / ants; a butterfly / butterflies
"""
"""Kinds, and in each things, set apart by ";", with other names of the same set apart by "/"."""
