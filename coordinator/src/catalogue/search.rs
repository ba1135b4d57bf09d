//! Finding data sets by words: in titles, descriptions, keywords, tables, columns and code systems, in Japanese and English.
//!
//! Every word must be found somewhere in the data set. Letters count alike in upper and lower case.

use sekisho_protocol::catalogue::{Catalogue, DataSet, Text};
use serde::Serialize;

/// Where a word was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `title`, `description`, `keyword`, `table`, `column` or `code system`.
    pub part: &'static str,
    /// Which: `stay.sex`; empty of the data set itself.
    pub name: String,
    /// The words there.
    pub text: String,
}

/// A data set in which every word was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// The hospital.
    pub node: String,
    /// The data set.
    pub data_set: String,
    /// Its title.
    pub title: String,
    /// Where.
    pub places: Vec<Place>,
}

/// The data sets of `catalogues` in which every one of `words` is found.
pub fn search<'a>(catalogues: impl IntoIterator<Item = &'a Catalogue>, words: &[String]) -> Vec<Hit> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let mut hits = Vec::new();
    for catalogue in catalogues {
        for set in &catalogue.data_sets {
            let places = places(set);
            let holds = |place: &Place, word: &String| {
                place.text.to_lowercase().contains(word) || place.name.to_lowercase().contains(word)
            };
            if words.iter().all(|word| places.iter().any(|place| holds(place, word))) {
                let found = places.into_iter().filter(|place| words.iter().any(|word| holds(place, word)));
                hits.push(Hit {
                    node: catalogue.node.clone(),
                    data_set: set.id.clone(),
                    title: set.declared.title.any().into(),
                    places: found.collect(),
                });
            }
        }
    }
    hits
}

fn places(set: &DataSet) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |part, name: &str, text: &str| places.push(Place { part, name: name.into(), text: text.into() });
    let words = |text: &Text| text.words().map(|(_, words)| words.to_string()).collect::<Vec<_>>().join(" / ");
    add("title", "", &words(&set.declared.title));
    add("description", "", &words(&set.declared.description));
    for (_, word) in set.declared.keywords.words() {
        add("keyword", "", word);
    }
    for code in &set.declared.coding_systems {
        add("code system", "", code);
    }
    for table in &set.tables {
        let texts = [&table.title, &table.description].into_iter().flatten().map(words).collect::<Vec<_>>();
        add("table", &table.name, &texts.join(" / "));
        for entry in &table.columns {
            let name = format!("{}.{}", table.name, entry.column.name);
            let texts = [&entry.title, &entry.description].into_iter().flatten().map(words).collect::<Vec<_>>();
            add("column", &name, &texts.join(" / "));
            if let Some(code) = &entry.code_system {
                add("code system", &name, code);
            }
        }
    }
    places
}
