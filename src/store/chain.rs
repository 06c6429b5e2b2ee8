//! The chain of the journal outside the state file: the lines of an export, and whether they are what was written. Pure.
//!
//! An export is JSON lines. The first one names the org, the program and the place before the first record; each record
//! stands with its own and the previous hash; the last line names how many there are, the head, and the SHA-256 of all
//! lines before it, so that nothing can be cut off or changed beside the records either.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::journal::{Anchor, Hash, JournalRow, hex, seal};

/// The most bytes of one line. A record holds the parameters of one event's actions, which is far less.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// What the first line calls the format.
const FORMAT: &str = "okta-responder journal 1";

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {what}")]
pub struct Broken {
    /// Such as `line 3`.
    pub place: String,
    /// A sentence.
    pub what: String,
}

/// What was found to be whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many records.
    pub count: u64,
    /// The place before the first record.
    pub anchor: Anchor,
    /// The last record's place.
    pub head: Anchor,
    /// Where the expected hash stands; records behind it are vouched for by nothing but the chain itself.
    pub expected_at: Option<u64>,
}

/// Follows a chain record by record.
#[derive(Debug, Clone)]
pub struct Chain {
    anchor: Anchor,
    head: Anchor,
    expected: Option<String>,
    expected_at: Option<u64>,
}

/// What every record says of itself.
#[derive(Deserialize)]
struct OfItself {
    seq: u64,
    at: Timestamp,
}

impl Chain {
    /// A chain behind a place. `expected` is a hash in hexadecimal that has to stand in it.
    pub fn behind(anchor: Anchor, expected: Option<&str>) -> Self {
        let expected = expected.map(|hash| hash.trim().to_ascii_lowercase());
        let expected_at = expected.as_ref().filter(|expected| **expected == hex(&anchor.hash)).map(|_| anchor.seq);
        Self { head: anchor.clone(), anchor, expected, expected_at }
    }

    /// The newest record's place.
    pub fn head(&self) -> &Anchor {
        &self.head
    }

    /// Takes the next record with the hash that stands beside it.
    ///
    /// # Errors
    /// The sentence that says what is wrong with it.
    pub fn follow(&mut self, record: &str, hash: &str) -> Result<Timestamp, String> {
        let next = self.head.seq + 1;
        let Ok(of_itself) = serde_json::from_str::<OfItself>(record) else {
            return Err(format!("what should be record {next} is no record"));
        };
        if of_itself.seq != next {
            return Err(format!(
                "record {} stands where record {next} should: records were removed, added or put in another order",
                of_itself.seq
            ));
        }
        let sealed = seal(&self.head.hash, record);
        if hex(&sealed) != hash {
            return Err(format!("record {next} or its hash was changed"));
        }
        self.head = Anchor { seq: next, hash: sealed };
        if self.expected.as_deref() == Some(hash) {
            self.expected_at = Some(next);
        }
        Ok(of_itself.at)
    }

    /// The end: whether the expected hash was met.
    ///
    /// # Errors
    /// When it was not.
    pub fn end(self) -> Result<Verified, Broken> {
        let Self { anchor, head, expected, expected_at } = self;
        if let (Some(expected), None) = (expected, expected_at) {
            return Err(Broken {
                place: format!("records {} to {}", anchor.seq + 1, head.seq),
                what: format!("the hash {expected} is none of theirs: this is not the chain that it was taken from"),
            });
        }
        Ok(Verified { count: head.seq - anchor.seq, anchor, head, expected_at })
    }
}

#[derive(Serialize, Deserialize)]
struct First<'a> {
    journal: String,
    org: &'a str,
    program: &'a str,
    first: u64,
    anchor: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Between<'a> {
    prev: &'a str,
    hash: &'a str,
    #[serde(borrow)]
    record: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Last<'a> {
    count: u64,
    last: u64,
    head: &'a str,
    sha256: &'a str,
}

/// Writes the lines of an export.
#[derive(Debug)]
pub struct Exporter {
    chain: Chain,
    digest: Sha256,
}

impl Exporter {
    /// Begins an export behind a place. Returns the first line.
    pub fn begin(anchor: Anchor, org: &str) -> (Self, String) {
        let first = First {
            journal: FORMAT.to_owned(),
            org,
            program: env!("CARGO_PKG_VERSION"),
            first: anchor.seq + 1,
            anchor: &hex(&anchor.hash),
        };
        let line = line(&first);
        let mut exporter = Self { chain: Chain::behind(anchor, None), digest: Sha256::new() };
        exporter.digest.update(&line);
        (exporter, line)
    }

    /// The line of the next record.
    ///
    /// # Errors
    /// When the record does not follow: it was pruned since, or somebody changed the journal.
    pub fn record(&mut self, row: &JournalRow) -> Result<String, Broken> {
        let (prev, hash) = (hex(&self.chain.head.hash), hex(&row.hash));
        let broken = |what| Broken { place: format!("record {}", row.seq), what };
        self.chain.follow(&row.record, &hash).map_err(broken)?;
        // Its text was just read as JSON.
        let record: &RawValue =
            serde_json::from_str(&row.record).map_err(|error| broken(format!("it is no JSON: {error}")))?;
        let line = line(&Between { prev: &prev, hash: &hash, record });
        self.digest.update(&line);
        Ok(line)
    }

    /// The last line, and the head.
    pub fn end(self) -> (String, Anchor) {
        let head = self.chain.head;
        let digest: Hash = self.digest.finalize().into();
        let last = Last {
            count: head.seq - self.chain.anchor.seq,
            last: head.seq,
            head: &hex(&head.hash),
            sha256: &hex(&digest),
        };
        (line(&last), head)
    }
}

/// Reads an export line by line.
#[derive(Debug)]
pub struct Verifier {
    expected: Option<String>,
    chain: Option<Chain>,
    digest: Sha256,
    number: u64,
    ended: bool,
}

impl Verifier {
    /// A verifier that has read nothing. `expected` is a hash that has to stand in the chain.
    pub fn new(expected: Option<String>) -> Self {
        Self { expected, chain: None, digest: Sha256::new(), number: 0, ended: false }
    }

    /// Takes the next line, with its line break.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Broken> {
        self.number += 1;
        let place = format!("line {}", self.number);
        self.take(line).map_err(|what| Broken { place, what })
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if self.ended {
            return Err("something stands behind the last line of the export".to_owned());
        }
        let Some((b'\n', text)) = line.split_last() else {
            return Err("the line does not end: the file is cut off".to_owned());
        };
        let text = std::str::from_utf8(text).map_err(|_| "the line is no text".to_owned())?;
        let Some(chain) = &mut self.chain else {
            let first = serde_json::from_str::<First<'_>>(text).ok().filter(|first| first.journal == FORMAT);
            let first = first.ok_or("this is not the first line of an export of the journal")?;
            let hash = unhex(first.anchor).ok_or("the anchor is no hash")?;
            let seq = first.first.checked_sub(1).ok_or("there is no record 0")?;
            self.chain = Some(Chain::behind(Anchor { seq, hash }, self.expected.as_deref()));
            self.digest.update(line);
            return Ok(());
        };
        if let Ok(between) = serde_json::from_str::<Between<'_>>(text) {
            if between.prev != hex(&chain.head.hash) {
                let next = chain.head.seq + 1;
                return Err(format!(
                    "what stands here does not follow record {}: record {next} was removed, changed or moved",
                    chain.head.seq
                ));
            }
            chain.follow(between.record.get(), between.hash)?;
            self.digest.update(line);
            return Ok(());
        }
        let last: Last<'_> =
            serde_json::from_str(text).map_err(|_| "this is neither a record nor the last line".to_owned())?;
        if (last.last, last.head) != (chain.head.seq, &hex(&chain.head.hash)) {
            return Err(format!("records behind record {} were removed", chain.head.seq));
        }
        let digest: Hash = std::mem::take(&mut self.digest).finalize().into();
        if last.count != chain.head.seq - chain.anchor.seq || last.sha256 != hex(&digest) {
            return Err("a line above was changed outside its record".to_owned());
        }
        self.ended = true;
        Ok(())
    }

    /// The end of the file.
    ///
    /// # Errors
    /// When the file is cut off, or the expected hash does not stand in it.
    pub fn end(self) -> Result<Verified, Broken> {
        match self.chain {
            Some(chain) if self.ended => chain.end(),
            _ => Err(Broken {
                place: format!("behind line {}", self.number),
                what: "the last line is missing: the file is cut off".to_owned(),
            }),
        }
    }
}

fn line(value: &impl Serialize) -> String {
    // Strings and numbers always become JSON.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GENESIS: Anchor = Anchor { seq: 0, hash: [0; 32] };

    fn rows(behind: &Anchor, count: u64) -> Vec<JournalRow> {
        let mut head = behind.clone();
        let mut rows = Vec::new();
        for seq in behind.seq + 1..=behind.seq + count {
            let at = Timestamp::from_second(1_800_000_000 + seq as i64).unwrap();
            let record = format!(r#"{{"seq":{seq},"at":"{at}","what":"paused","by":"program","n":"ä{}"}}"#, seq * 7);
            head = Anchor { seq, hash: seal(&head.hash, &record) };
            rows.push(JournalRow { seq, at, record, hash: head.hash });
        }
        rows
    }

    fn export(behind: &Anchor, rows: &[JournalRow]) -> (Vec<Vec<u8>>, Anchor) {
        let (mut exporter, first) = Exporter::begin(behind.clone(), "https://example.okta.com");
        let mut lines = vec![first];
        lines.extend(rows.iter().map(|row| exporter.record(row).unwrap()));
        let (last, head) = exporter.end();
        lines.push(last);
        (lines.into_iter().map(String::into_bytes).collect(), head)
    }

    fn verify(lines: &[Vec<u8>], expected: Option<String>) -> Result<Verified, Broken> {
        let mut verifier = Verifier::new(expected);
        // As a file is read: by line breaks, wherever they are now.
        for line in lines.concat().split_inclusive(|byte| *byte == b'\n') {
            verifier.line(line)?;
        }
        verifier.end()
    }

    #[test]
    fn an_export_is_whole_and_the_next_one_begins_where_it_ended() {
        let all = rows(&GENESIS, 9);
        let (first, head) = export(&GENESIS, &all[..4]);
        let told = verify(&first, None).unwrap();
        assert_eq!((told.count, &told.head), (4, &head));
        let (second, _) = export(&head, &all[4..]);
        let told = verify(&second, Some(hex(&head.hash))).unwrap();
        assert_eq!((told.count, told.anchor, told.expected_at), (5, head, Some(4)));
        assert!(verify(&export(&GENESIS, &[]).0, None).is_ok(), "nothing happened");
    }

    #[test]
    fn the_first_place_that_is_wrong_is_told() {
        let (lines, head) = export(&GENESIS, &rows(&GENESIS, 5));
        let check = |change: &dyn Fn(&mut Vec<Vec<u8>>), expected: &str| {
            let mut lines = lines.clone();
            change(&mut lines);
            assert_eq!(verify(&lines, None).unwrap_err().to_string(), expected);
        };
        check(
            &|lines| drop(lines.remove(2)),
            "line 3: what stands here does not follow record 1: record 2 was removed, changed or moved",
        );
        check(
            &|lines| lines.swap(3, 4),
            "line 4: what stands here does not follow record 2: record 3 was removed, changed or moved",
        );
        check(&|lines| drop(lines.remove(5)), "line 6: records behind record 4 were removed");
        check(&|lines| drop(lines.pop()), "behind line 6: the last line is missing: the file is cut off");
        check(&|lines| lines.push(lines[2].clone()), "line 8: something stands behind the last line of the export");
        let changed = |lines: &mut Vec<Vec<u8>>| {
            let text = String::from_utf8(lines[2].clone()).unwrap().replace("paused", "forged");
            lines[2] = text.into_bytes();
        };
        check(&changed, "line 3: record 2 or its hash was changed");
        let org = |lines: &mut Vec<Vec<u8>>| {
            lines[0] = String::from_utf8(lines[0].clone()).unwrap().replace("example", "another").into_bytes();
        };
        check(&org, "line 7: a line above was changed outside its record");
        // Computed anew from the third record on: only a head that was kept elsewhere tells.
        let mut forged = rows(&GENESIS, 2);
        forged.extend(rows(&Anchor { seq: 2, hash: forged[1].hash }, 3));
        forged.truncate(4);
        let (forged, _) = export(&GENESIS, &forged);
        assert!(verify(&forged, None).is_ok());
        assert!(verify(&forged, Some(hex(&head.hash))).unwrap_err().what.contains("is none of theirs"));
    }

    proptest! {
        #[test]
        fn whatever_is_done_to_an_export_is_noticed(
            records in 1..6_u64, what in 0..5_u8, at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let (whole, _) = export(&GENESIS, &rows(&GENESIS, records));
            prop_assert!(verify(&whole, None).is_ok());
            let mut lines = whole.clone();
            let (line, other) = (at.index(lines.len()), to.index(lines.len()));
            match what {
                0 => { let byte = to.index(lines[line].len()); lines[line][byte] ^= flip; }
                1 => drop(lines.remove(line)),
                2 => lines.swap(line, other),
                3 => lines.insert(other, whole[line].clone()),
                _ => { let byte = to.index(lines[line].len()); let _ = lines[line].remove(byte); }
            }
            prop_assume!(lines != whole);
            prop_assert!(verify(&lines, None).is_err(), "{what}: {}", String::from_utf8_lossy(&lines.concat()));
        }
    }
}
