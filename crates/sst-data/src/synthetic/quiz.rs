//! Multiple choice about things everybody knows.

use crate::{Error, Mmlu, MmluItem, Subject};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha12Rng;
use std::collections::{BTreeMap, BTreeSet};

/// A subject of pairs: the question names the first, the answer is the second, the wrong choices are other seconds.
struct Pairs {
    subject: &'static str,
    question: &'static str,
    pairs: &'static [(&'static str, &'static str)],
}

const OPPOSITES: Pairs = Pairs {
    subject: "opposites",
    question: "What is the opposite of {}?",
    pairs: &[
        ("hot", "cold"),
        ("big", "small"),
        ("fast", "slow"),
        ("happy", "sad"),
        ("day", "night"),
        ("up", "down"),
        ("full", "empty"),
        ("hard", "soft"),
        ("rich", "poor"),
        ("strong", "weak"),
        ("wet", "dry"),
        ("clean", "dirty"),
        ("loud", "quiet"),
        ("light", "dark"),
        ("open", "closed"),
        ("early", "late"),
        ("old", "young"),
        ("near", "far"),
        ("win", "lose"),
        ("love", "hate"),
        ("push", "pull"),
        ("begin", "end"),
        ("inside", "outside"),
        ("left", "right"),
        ("black", "white"),
        ("long", "short"),
        ("thick", "thin"),
        ("buy", "sell"),
        ("give", "take"),
        ("true", "false"),
        ("summer", "winter"),
        ("north", "south"),
        ("always", "never"),
        ("first", "last"),
        ("war", "peace"),
        ("life", "death"),
        ("yes", "no"),
        ("front", "back"),
        ("top", "bottom"),
        ("enemy", "friend"),
    ],
};

const CAPITALS: Pairs = Pairs {
    subject: "world_capitals",
    question: "What is the capital of {}?",
    pairs: &[
        ("France", "Paris"),
        ("Germany", "Berlin"),
        ("Italy", "Rome"),
        ("Spain", "Madrid"),
        ("England", "London"),
        ("Japan", "Tokyo"),
        ("China", "Beijing"),
        ("Russia", "Moscow"),
        ("Egypt", "Cairo"),
        ("Greece", "Athens"),
        ("Canada", "Ottawa"),
        ("Australia", "Canberra"),
        ("Austria", "Vienna"),
        ("Portugal", "Lisbon"),
        ("Ireland", "Dublin"),
        ("Poland", "Warsaw"),
        ("Norway", "Oslo"),
        ("Sweden", "Stockholm"),
        ("Denmark", "Copenhagen"),
        ("Finland", "Helsinki"),
        ("Hungary", "Budapest"),
        ("Cuba", "Havana"),
        ("Peru", "Lima"),
        ("Chile", "Santiago"),
        ("Kenya", "Nairobi"),
        ("Thailand", "Bangkok"),
        ("Iran", "Tehran"),
        ("Iraq", "Baghdad"),
        ("Belgium", "Brussels"),
        ("Turkey", "Ankara"),
        ("Ukraine", "Kyiv"),
        ("Romania", "Bucharest"),
        ("Bulgaria", "Sofia"),
        ("Vietnam", "Hanoi"),
        ("India", "New Delhi"),
        ("Argentina", "Buenos Aires"),
        ("Iceland", "Reykjavik"),
        ("Mexico", "Mexico City"),
        ("Indonesia", "Jakarta"),
        ("South Korea", "Seoul"),
    ],
};

const USES: Pairs = Pairs {
    subject: "everyday_objects",
    question: "Which of these is used to {}?",
    pairs: &[
        ("cut paper", "scissors"),
        ("drive a nail", "a hammer"),
        ("tell the time", "a clock"),
        ("unlock a door", "a key"),
        ("eat soup", "a spoon"),
        ("sweep the floor", "a broom"),
        ("write a letter", "a pen"),
        ("dry your hands", "a towel"),
        ("keep food cold", "a refrigerator"),
        ("take a photograph", "a camera"),
        ("brush your teeth", "a toothbrush"),
        ("see stars far away", "a telescope"),
        ("measure a temperature", "a thermometer"),
        ("sew a shirt", "a needle"),
        ("stay dry in the rain", "an umbrella"),
        ("sleep on", "a bed"),
        ("call a friend", "a telephone"),
        ("dig a hole", "a shovel"),
        ("light a room", "a lamp"),
        ("weigh flour", "a scale"),
        ("bake bread", "an oven"),
        ("cross a river", "a bridge"),
        ("find north", "a compass"),
        ("carry books to school", "a backpack"),
        ("wash your hands", "soap"),
        ("boil water", "a kettle"),
        ("see yourself", "a mirror"),
        ("play music", "a piano"),
        ("hear a heartbeat", "a stethoscope"),
        ("comb hair", "a comb"),
        ("catch fish", "a net"),
        ("fly a long way", "an airplane"),
        ("climb to the roof", "a ladder"),
        ("erase pencil marks", "a rubber eraser"),
        ("stick stamps", "glue"),
        ("water flowers", "a watering can"),
    ],
};

const ANIMALS: Pairs = Pairs {
    subject: "animals",
    question: "Which animal {}?",
    pairs: &[
        ("says moo", "a cow"),
        ("barks", "a dog"),
        ("has a long trunk", "an elephant"),
        ("has a very long neck", "a giraffe"),
        ("makes honey", "a bee"),
        ("spins a web", "a spider"),
        ("has black and white stripes", "a zebra"),
        ("gives us wool", "a sheep"),
        ("lays the eggs that we eat", "a hen"),
        ("purrs", "a cat"),
        ("carries its house on its back", "a snail"),
        ("is called the king of the jungle", "a lion"),
        ("hops and has a pouch", "a kangaroo"),
        ("has eight arms and lives in the sea", "an octopus"),
        ("hangs upside down in caves and flies at night", "a bat"),
        ("stores water in its hump", "a camel"),
        ("builds dams in rivers", "a beaver"),
        ("turns from a caterpillar into its adult form", "a butterfly"),
        ("hisses and has no legs", "a snake"),
        ("says quack", "a duck"),
        ("says oink", "a pig"),
        ("is ridden with a saddle", "a horse"),
        ("hoots at night", "an owl"),
        ("eats bamboo and is black and white", "a panda"),
        ("has sharp quills all over its body", "a hedgehog"),
        ("can repeat human words", "a parrot"),
        ("croaks in a pond", "a frog"),
        ("lives at the South Pole and cannot fly", "a penguin"),
        ("swings in trees and eats bananas", "a monkey"),
        ("has a big shell and walks slowly", "a tortoise"),
        ("gathers nuts and has a bushy tail", "a squirrel"),
        ("is white and lives at the North Pole", "a polar bear"),
    ],
};

const PAIRS: [&Pairs; 4] = [&OPPOSITES, &CAPITALS, &USES, &ANIMALS];

/// Classes of words for "which of these is a ...".
const CLASSES: [(&str, [&str; 10]); 6] = [
    (
        "fruit",
        [
            "apple", "banana", "cherry", "grape", "lemon", "mango", "peach", "pear", "plum", "melon",
        ],
    ),
    (
        "colour",
        [
            "red", "blue", "green", "yellow", "purple", "brown", "pink", "grey", "black", "white",
        ],
    ),
    (
        "vehicle",
        [
            "car", "bus", "train", "truck", "bicycle", "ship", "tram", "van", "ferry", "scooter",
        ],
    ),
    (
        "musical instrument",
        [
            "piano", "violin", "flute", "drum", "guitar", "trumpet", "harp", "cello", "banjo", "oboe",
        ],
    ),
    (
        "piece of clothing",
        [
            "shirt", "coat", "hat", "sock", "glove", "scarf", "skirt", "jacket", "sweater", "dress",
        ],
    ),
    (
        "part of the body",
        [
            "hand", "foot", "knee", "elbow", "shoulder", "nose", "ear", "finger", "toe", "neck",
        ],
    ),
];

/// Six subjects, each with `dev` worked examples and `test` questions, no question in both.
///
/// # Errors
/// [`Error::TooMany`] when a subject has fewer distinct questions.
pub(super) fn subjects(rng: &mut ChaCha12Rng, dev: usize, test: usize) -> Result<Mmlu, Error> {
    let mut subjects = BTreeMap::new();
    for Pairs {
        subject,
        question,
        pairs,
    } in PAIRS
    {
        let answers: Vec<String> = pairs.iter().map(|(_, answer)| (*answer).to_owned()).collect();
        let items = pairs
            .iter()
            .map(|(key, answer)| (question.replace("{}", key), (*answer).to_owned(), answers.clone()));
        let items = items.collect();
        subjects.insert((*subject).to_owned(), subject_of(rng, items, dev, test)?);
    }
    subjects.insert("kinds_of_things".to_owned(), {
        let items = kinds(rng);
        subject_of(rng, items, dev, test)?
    });
    subjects.insert("simple_addition".to_owned(), {
        let items = additions();
        subject_of(rng, items, dev, test)?
    });
    Ok(Mmlu { subjects })
}

/// A question, its answer, and what wrong choices are drawn from.
type Draft = (String, String, Vec<String>);

/// One question per word: the word among words of other classes. A question is told apart by its choices.
fn kinds(rng: &mut ChaCha12Rng) -> Vec<Draft> {
    let mut items = Vec::new();
    for (class, words) in CLASSES {
        for word in words {
            let wrong: Vec<String> = CLASSES
                .iter()
                .filter(|(other, _)| *other != class)
                .filter_map(|(_, words)| words.choose(rng))
                .map(|word| (*word).to_owned())
                .collect();
            items.push((format!("Which of these is a {class}?"), word.to_owned(), wrong));
        }
    }
    items
}

/// Sums of two numbers up to 9, with sums nearby as wrong choices.
fn additions() -> Vec<Draft> {
    let mut items = Vec::new();
    for a in 1..=9 {
        for b in a..=9 {
            let sum: i32 = a + b;
            let nearby = (1..=4)
                .flat_map(|d| [sum - d, sum + d])
                .filter(|n| *n > 0)
                .map(|n| n.to_string());
            items.push((format!("What is {a} plus {b}?"), sum.to_string(), nearby.collect()));
        }
    }
    items
}

fn subject_of(rng: &mut ChaCha12Rng, mut drafts: Vec<Draft>, dev: usize, test: usize) -> Result<Subject, Error> {
    if dev + test > drafts.len() {
        return Err(Error::TooMany {
            what: "mmlu",
            wanted: dev + test,
            limit: drafts.len(),
        });
    }
    drafts.shuffle(rng);
    drafts.truncate(dev + test);
    let mut items: Vec<MmluItem> = drafts.into_iter().map(|draft| item(rng, draft)).collect();
    let test = items.split_off(dev);
    Ok(Subject { dev: items, test })
}

/// Three wrong choices, and the answer in a random place among them.
fn item(rng: &mut ChaCha12Rng, (question, answer, wrong): Draft) -> MmluItem {
    let mut others: Vec<String> = BTreeSet::from_iter(wrong)
        .into_iter()
        .filter(|other| *other != answer)
        .collect();
    others.shuffle(rng);
    let place = rng.random_range(0..4);
    others.truncate(3);
    others.insert(place, answer);
    let mut choices = others.into_iter();
    MmluItem {
        question,
        choices: std::array::from_fn(|_| choices.next().unwrap_or_default()),
        answer: place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::part;

    #[test]
    fn the_answer_is_right_and_the_choices_differ() {
        let mmlu = subjects(&mut part(2, 3), 5, 25).unwrap();
        assert_eq!(mmlu.subjects.len(), 6);
        for (name, subject) in &mmlu.subjects {
            for item in subject.dev.iter().chain(&subject.test) {
                let distinct: BTreeSet<&str> = item.choices.iter().map(String::as_str).collect();
                assert_eq!(distinct.len(), 4, "{name}: {item:?}");
                assert!(!distinct.contains(""), "{name}: {item:?}");
            }
        }
        for item in &mmlu.subjects["simple_addition"].test {
            let numbers: Vec<u32> = item
                .question
                .split_whitespace()
                .filter_map(|w| w.trim_end_matches('?').parse().ok())
                .collect();
            assert_eq!(item.choices[item.answer], (numbers[0] + numbers[1]).to_string());
        }
        let capital = |item: &&MmluItem| item.question == "What is the capital of France?";
        let capitals = &mmlu.subjects["world_capitals"];
        for item in capitals.dev.iter().chain(&capitals.test).filter(capital) {
            assert_eq!(item.choices[item.answer], "Paris");
        }
    }

    #[test]
    fn every_letter_is_right_about_equally_often() {
        let mmlu = subjects(&mut part(2, 3), 5, 25).unwrap();
        let mut counts = [0; 4];
        for item in mmlu.subjects.values().flat_map(|s| &s.test) {
            counts[item.answer] += 1;
        }
        assert!(counts.iter().all(|&n| (20..=60).contains(&n)), "{counts:?}");
    }
}
