//! Fictional documents of several facts each, and questions whose answers stand in them.

use super::SplitSizes;
use crate::{Error, RepliQaItem};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha12Rng;

const QUESTIONS_PER_DOCUMENT: usize = 4;

const STARTS: [&str; 24] = [
    "Vel", "Tor", "Ash", "Brin", "Cal", "Dor", "Eld", "Fen", "Gar", "Hol", "Ister", "Jor", "Kel", "Lun", "Mar", "Nor",
    "Os", "Pel", "Quen", "Ros", "Sel", "Thal", "Ul", "Wen",
];
const MIDDLES: [&str; 10] = ["a", "e", "i", "o", "u", "ami", "ori", "eni", "ula", "ando"];
const ENDS: [&str; 12] = [
    "mora", "wick", "stead", "vale", "mouth", "ford", "dale", "haven", "bury", "holm", "crest", "mere",
];
const FIRST_NAMES: [&str; 24] = [
    "Ansel", "Bruna", "Cedric", "Dalia", "Edmund", "Fiora", "Gideon", "Helga", "Ivor", "Junia", "Konrad", "Livia",
    "Magnus", "Nerys", "Otto", "Petra", "Quentin", "Rosalind", "Silas", "Tamsin", "Ulric", "Verena", "Walter",
    "Yvette",
];
const SURNAMES: [&str; 24] = [
    "Torvik",
    "Ashdown",
    "Brandt",
    "Corley",
    "Dunmore",
    "Ekholm",
    "Farrow",
    "Grimsby",
    "Halden",
    "Ingram",
    "Jessop",
    "Kettering",
    "Lindqvist",
    "Marlow",
    "Norwood",
    "Oakes",
    "Pemberton",
    "Quill",
    "Radley",
    "Sorrel",
    "Thackeray",
    "Underhill",
    "Vance",
    "Wexley",
];
const KINDS: [&str; 12] = [
    "Observatory",
    "Museum",
    "Library",
    "Theatre",
    "Brewery",
    "Bakery",
    "Lighthouse",
    "Garden",
    "Workshop",
    "Mill",
    "Orchard",
    "Gallery",
];
const TERRAINS: [&str; 8] = [
    "coastal", "mountain", "river", "island", "forest", "desert", "lakeside", "border",
];
const TRADES: [&str; 12] = [
    "sailor",
    "teacher",
    "clockmaker",
    "nurse",
    "farmer",
    "painter",
    "baker",
    "miner",
    "tailor",
    "pilot",
    "carpenter",
    "fisherman",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const EVENTS: [&str; 10] = [
    "lantern festival",
    "kite contest",
    "book fair",
    "harvest dinner",
    "choir night",
    "boat race",
    "poetry evening",
    "flower show",
    "chess tournament",
    "puppet week",
];
const MATERIALS: [&str; 8] = [
    "granite",
    "red brick",
    "oak",
    "limestone",
    "marble",
    "sandstone",
    "cedar",
    "slate",
];
const COLOURS: [&str; 8] = [
    "green", "blue", "yellow", "white", "black", "orange", "purple", "silver",
];
const TREASURES: [&str; 12] = [
    "brass telescope",
    "silver violin",
    "wooden globe",
    "glass piano",
    "painted map",
    "copper bell",
    "stone chessboard",
    "golden anchor",
    "paper kite",
    "jade clock",
    "bronze crown",
    "woven carpet",
];
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const COINS: [&str; 4] = ["crowns", "shillings", "ducats", "florins"];

/// Questions to train on and to evaluate on; no document serves both.
///
/// # Errors
/// [`Error::TooMany`] when there are not enough names for the documents.
pub(super) fn questions(
    rng: &mut ChaCha12Rng,
    sizes: SplitSizes,
) -> Result<(Vec<RepliQaItem>, Vec<RepliQaItem>), Error> {
    let documents = sizes.train.div_ceil(QUESTIONS_PER_DOCUMENT) + sizes.eval.div_ceil(QUESTIONS_PER_DOCUMENT);
    let mut names: Vec<String> = Vec::new();
    for start in STARTS {
        for middle in MIDDLES {
            names.extend(ENDS.iter().map(|end| format!("{start}{middle}{end}")));
        }
    }
    // Two names per document: the place itself and its town.
    if 2 * documents > names.len() {
        return Err(Error::TooMany {
            what: "repliqa",
            wanted: documents * QUESTIONS_PER_DOCUMENT,
            limit: names.len() / 2 * QUESTIONS_PER_DOCUMENT,
        });
    }
    names.shuffle(rng);
    let mut documents = names.chunks_exact(2).enumerate();
    let mut take = |rng: &mut ChaCha12Rng, wanted: usize| {
        let mut items = Vec::new();
        while items.len() < wanted
            && let Some((i, names)) = documents.next()
        {
            items.extend(document(rng, format!("doc-{i:04}"), &names[0], &names[1]));
        }
        items.truncate(wanted);
        items
    };
    let train = take(rng, sizes.train);
    let eval = take(rng, sizes.eval);
    Ok((train, eval))
}

/// One document of some 60 to 90 words with [`QUESTIONS_PER_DOCUMENT`] questions about different facts of it.
fn document(rng: &mut ChaCha12Rng, id: String, name: &str, town: &str) -> Vec<RepliQaItem> {
    let kind = pick(rng, &KINDS);
    let place = format!("the {name} {kind}");
    let founder = person(rng, None);
    let head = person(rng, Some(&founder));
    let (trade, terrain, month, event) = (
        pick(rng, &TRADES),
        pick(rng, &TERRAINS),
        pick(rng, &MONTHS),
        pick(rng, &EVENTS),
    );
    let (material, colour, treasure) = (pick(rng, &MATERIALS), pick(rng, &COLOURS), pick(rng, &TREASURES));
    let (weekday, coin) = (pick(rng, &WEEKDAYS), pick(rng, &COINS));
    let founded = rng.random_range(1740..1960);
    let (staff, price) = (rng.random_range(3..40), rng.random_range(2..13));

    let intro = format!("The {name} {kind} stands in {town}, a small {terrain} town.");
    let mut sentences = [
        choice(
            rng,
            [
                format!("It was founded in {founded} by {founder}, who had been a {trade} before."),
                format!("{founder}, once a {trade}, founded it in {founded}."),
            ],
        ),
        choice(
            rng,
            [
                format!("Today {head} runs the place with a staff of {staff} people."),
                format!("It is now led by {head}, and {staff} people work there."),
            ],
        ),
        choice(
            rng,
            [
                format!("Every {month} it holds a {event} that draws guests from far away."),
                format!("A {event} takes place there each year in {month}."),
            ],
        ),
        choice(
            rng,
            [
                format!("The walls are made of {material} and the roof is {colour}."),
                format!("Its {colour} roof rests on walls of {material}."),
            ],
        ),
        choice(
            rng,
            [
                format!("Its most famous possession is a {treasure}, kept in a room of its own."),
                format!("Visitors come above all to see its most famous possession, a {treasure}."),
            ],
        ),
        choice(
            rng,
            [
                format!("It is closed on {weekday}s, and a ticket costs {price} {coin}."),
                format!("A ticket costs {price} {coin}; on {weekday}s the doors stay closed."),
            ],
        ),
    ];
    sentences.shuffle(rng);
    let text = format!("{intro} {}", sentences.join(" "));

    let mut facts = [
        (format!("Who founded {place}?"), founder),
        (format!("In which year was {place} founded?"), founded.to_string()),
        (
            format!("What was the trade of the founder of {place}?"),
            trade.to_owned(),
        ),
        (format!("Who runs {place} today?"), head),
        (format!("How many people work at {place}?"), staff.to_string()),
        (
            format!("In which month does {place} hold its {event}?"),
            month.to_owned(),
        ),
        (format!("Which event does {place} hold every year?"), event.to_owned()),
        (format!("What are the walls of {place} made of?"), material.to_owned()),
        (format!("What colour is the roof of {place}?"), colour.to_owned()),
        (
            format!("What is the most famous possession of {place}?"),
            format!("a {treasure}"),
        ),
        (format!("On which day is {place} closed?"), weekday.to_owned()),
        (
            format!("How much does a ticket to {place} cost?"),
            format!("{price} {coin}"),
        ),
        (format!("In which town is {place}?"), town.to_owned()),
    ];
    facts.shuffle(rng);
    let item = |(question, answer)| RepliQaItem {
        document_id: id.clone(),
        document_extracted: text.clone(),
        question,
        answer,
    };
    facts.into_iter().take(QUESTIONS_PER_DOCUMENT).map(item).collect()
}

/// A person other than `other`.
fn person(rng: &mut ChaCha12Rng, other: Option<&str>) -> String {
    loop {
        let name = format!("{} {}", pick(rng, &FIRST_NAMES), pick(rng, &SURNAMES));
        if other != Some(name.as_str()) {
            return name;
        }
    }
}

fn pick(rng: &mut ChaCha12Rng, words: &[&'static str]) -> &'static str {
    words.choose(rng).copied().unwrap_or_default()
}

fn choice(rng: &mut ChaCha12Rng, [one, other]: [String; 2]) -> String {
    if rng.random_bool(0.5) { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::part;
    use std::collections::BTreeSet;

    #[test]
    fn documents_have_their_length_and_hold_the_answers() {
        let sizes = SplitSizes { train: 400, eval: 100 };
        let (train, eval) = questions(&mut part(5, 0), sizes).unwrap();
        for item in train.iter().chain(&eval) {
            let text = &item.document_extracted;
            let words = text.split_whitespace().count();
            assert!((60..=90).contains(&words), "{words} words: {text}");
            assert!(text.contains(&item.answer), "{} not in {text}", item.answer);
        }
    }

    #[test]
    fn a_document_has_different_questions() {
        let (train, _) = questions(&mut part(5, 0), SplitSizes { train: 40, eval: 0 }).unwrap();
        for items in train.chunks(QUESTIONS_PER_DOCUMENT) {
            let asked: BTreeSet<&str> = items.iter().map(|item| item.question.as_str()).collect();
            assert_eq!(asked.len(), QUESTIONS_PER_DOCUMENT);
            assert!(items.iter().all(|item| item.document_id == items[0].document_id));
        }
    }
}
