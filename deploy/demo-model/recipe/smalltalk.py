"""Greetings and the like: each kind has one answer."""

import random

ABOUT = "I switch devices, read measurements and explain terms of the trade."

KINDS = {
    f"Hello. {ABOUT}": (
        "hi", "hello", "hey", "hello there", "hi there", "good morning", "good evening", "good afternoon", "hey there", "hi gateway", "greetings", "good day",
        "hello gateway", "morning", "hello, is anybody there", "are you there", "hey, are you awake", "hi, nice to meet you", "howdy", "yo", "hallo", "welcome",
    ),
    "You are welcome.": (
        "thanks", "thank you", "thank you very much", "thanks a lot", "many thanks", "great, thanks", "thank you so much", "cheers", "ok thanks", "perfect, thank you",
        "thanks for your help", "that was helpful, thanks", "thx", "ok, thank you", "thanks again", "wonderful, thanks",
    ),
    "Goodbye.": ("bye", "goodbye", "bye bye", "see you", "see you later", "good night", "see you tomorrow", "that's all for today", "until tomorrow", "farewell", "have a nice day", "i am off, bye"),
    "I am the demo model of Recurve, a small RecurrentGemma that runs on this gateway.": (
        "who are you", "what are you", "what is your name", "are you a robot", "are you human", "introduce yourself", "who am i talking to", "which model are you",
        "what model is this", "are you an ai", "what should i call you", "tell me about yourself", "who made you", "are you a language model", "what kind of model are you",
    ),
    ABOUT: (
        "what can you do", "help", "how can you help me", "what do you do", "what can i ask you", "help me", "what are you good for", "what are your skills",
        "how do i use you", "what commands do you know", "what do you understand", "i need help", "can you help me", "what else can you do", "how does this work", "what can i say",
    ),
    "I am running well, thank you.": (
        "how are you", "how are you doing", "how do you do", "are you ok", "how is it going", "how are you today", "are you well", "everything ok with you", "how do you feel", "what's up",
    ),
    "Good.": ("ok", "okay", "fine", "all right", "good", "great", "perfect", "well done", "good job", "very good", "nice", "you are great", "that worked", "excellent", "super", "i like you", "that is right", "correct"),
    "I am sorry. Please say it again, with the device and the room.": (
        "that is wrong", "that was wrong", "no, that's not what i meant", "you got it wrong", "this is not right", "you misunderstood me", "that is not correct",
        "i did not ask for that", "wrong", "bad answer", "you are stupid", "that's not what i said", "it did not work", "nothing happened",
    ),
}  # fmt: skip
MARKS = ("", "", "", ".", "!", "?")


def chat(rng: random.Random) -> tuple[str, str, list[str]]:
    answer = rng.choice(list(KINDS))
    said = rng.choice(KINDS[answer])
    return said + rng.choice(MARKS), answer, [f"chat {said}"]
