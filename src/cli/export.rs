//! `okta-responder export`

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::moment::Moment;
use super::table::plural;
use super::{Exit, load_config, load_for_state, now, open_store, runtime, terminal};
use crate::config::load::Loaded;
use crate::store::chain::{Broken, Chain, Exporter, MAX_LINE, Verified, Verifier};
use crate::store::{Store, hex};

/// Records read at once.
const PAGE: usize = 1_000;

/// Tell the journal for an audit, or verify that nothing in it was changed
///
/// The journal holds, in order, what was decided, every change of an action, and what people did with which command. Each
/// record is sealed with the one before it (SHA-256). An export is JSON lines: a first line, one line a record with its own
/// and the previous hash, a last line with the head. It holds parameters of actions, but neither secrets nor records of
/// events.
///
/// --verify says whether a record was removed, changed, added or moved, and the first place where. Whoever can write the
/// state file can also compute the whole chain anew: keep heads elsewhere, and name one with --expect. This command prints
/// the head, and the daemon logs it once a day.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    okta-responder export --since 2026-08-01T00:00:00Z --until 2026-09-01T00:00:00Z --output august.jsonl\n  \
    okta-responder export --verify august.jsonl\n  \
    okta-responder export --verify --expect HEAD        the journal in the state file, against a head from the log\n\n\
    Exit codes: 0 told, or whole; 1 something was changed, or the file cannot be read.")]
pub(super) struct Arguments {
    /// Only what happened at or after this time [default: all that is kept]
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only what happened before this time [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to this file, which is made; its owner alone can read it [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Verify an export, or without a FILE the journal in the state file
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["since", "until", "output"])]
    verify: Option<Option<PathBuf>>,
    /// A hash (64 digits) that has to stand in the chain
    #[arg(long, value_name = "HEAD", requires = "verify", value_parser = hash)]
    expect: Option<String>,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// One JSON object a line
    #[default]
    Jsonl,
}

/// Reads a hash.
fn hash(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let whole = text.len() == 64 && text.chars().all(|digit| digit.is_ascii_hexdigit());
    if whole { Ok(text) } else { Err("a head has 64 hexadecimal digits".to_owned()) }
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.verify {
        // An auditor has neither configuration nor state file.
        Some(Some(export)) => told(verify_file(export, arguments.expect.clone())?),
        Some(None) => {
            let store = open_store(&load_for_state(file)?)?;
            told(runtime()?.block_on(verify_state(&store, arguments.expect.as_deref()))?)
        }
        None => {
            let loaded = load_config(file)?;
            let Format::Jsonl = arguments.format;
            runtime()?.block_on(export(&loaded, arguments))
        }
    }
}

fn told(result: Result<Verified, Broken>) -> anyhow::Result<Exit> {
    let verified = match result {
        Ok(verified) => verified,
        Err(broken) => return Err(anyhow!("the journal is not what was written: {broken}")),
    };
    let Verified { count, anchor, head, expected_at } = verified;
    let records = plural(count, "record");
    if count == 0 {
        terminal::line(format!("Whole: no records behind number {}.", anchor.seq))?;
    } else {
        terminal::line(format!("Whole: {records}, numbers {} to {}.", anchor.seq + 1, head.seq))?;
    }
    terminal::line(format!("begins behind  {}\nhead           {}", hex(&anchor.hash), hex(&head.hash)))?;
    match expected_at {
        Some(at) if at == head.seq => terminal::line("The expected hash is the head.")?,
        Some(at) => terminal::line(format!(
            "The expected hash is that of number {at}; behind it stand {}, for which it does not vouch.",
            plural(head.seq - at, "record")
        ))?,
        None => terminal::line("Compare the head with one that was kept elsewhere (--expect).")?,
    }
    Ok(Exit::Done)
}

fn verify_file(path: &Path, expected: Option<String>) -> anyhow::Result<Result<Verified, Broken>> {
    let context = || format!("the export {}", path.display());
    let mut reader = BufReader::new(File::open(path).with_context(context)?);
    let mut verifier = Verifier::new(expected);
    let mut line = Vec::new();
    loop {
        line.clear();
        // What is longer than any line loses its end, and is told as cut off.
        let bytes = reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).with_context(context)?;
        if bytes == 0 {
            return Ok(verifier.end());
        }
        if let Err(broken) = verifier.line(&line) {
            return Ok(Err(broken));
        }
    }
}

async fn verify_state(store: &Store, expected: Option<&str>) -> anyhow::Result<Result<Verified, Broken>> {
    let stretch = store.journal_stretch(None, None).await?;
    let broken = |place: String, what: &str| Ok(Err(Broken { place, what: what.to_owned() }));
    if let Some((seq, told)) = store.journal_told_anchor().await?
        && (seq, &told) != (stretch.anchor.seq, &hex(&stretch.anchor.hash))
    {
        let place = format!("record {}", stretch.anchor.seq + 1);
        return broken(place, "the journal does not begin where its last prune says: records were removed");
    }
    let mut chain = Chain::behind(stretch.anchor, expected);
    loop {
        let page = store.journal_page(chain.head().seq, stretch.last, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for row in page {
            let place = format!("record {}", row.seq);
            match chain.follow(&row.record, &hex(&row.hash)) {
                Err(what) => return broken(place, &what),
                Ok(at) if at != row.at => return broken(place, "its moment is not the one that its record names"),
                Ok(_) => {}
            }
        }
    }
    Ok(chain.end())
}

async fn export(loaded: &Loaded, arguments: &Arguments) -> anyhow::Result<Exit> {
    let store = open_store(&loaded.config)?;
    let now = now();
    let (since, until) = (arguments.since.map(|since| since.at(now)), arguments.until.map(|until| until.at(now)));
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(Exit::Usage.because(format!("--since {since} lies behind --until {until}")));
    }
    let stretch = store.journal_stretch(since, until).await?;
    let mut out = Output::open(arguments.output.as_deref())?;
    let (mut exporter, first) = Exporter::begin(stretch.anchor.clone(), loaded.config.org_url()?.as_str());
    let mut open = out.write(&first)?;
    let mut at = stretch.anchor.seq;
    while open && at < stretch.last {
        let page = store.journal_page(at, stretch.last, PAGE).await?;
        if page.is_empty() {
            return Err(anyhow!("record {} is not in the journal; `okta-responder export --verify` says more", at + 1));
        }
        for row in page {
            at = row.seq;
            open = open && out.write(&exporter.record(&row)?)?;
        }
    }
    if !open {
        return Ok(Exit::Done);
    }
    let (last, head) = exporter.end();
    out.write(&last)?;
    out.end()?;
    terminal::note(format!(
        "{} told; keep the head elsewhere: {}",
        plural(head.seq - stretch.anchor.seq, "record"),
        hex(&head.hash)
    ));
    Ok(Exit::Done)
}

/// Where an export goes. A file gets its name when it is whole.
enum Output {
    Standard(BufWriter<io::Stdout>),
    File { writer: BufWriter<File>, partial: PathBuf, name: PathBuf },
}

impl Output {
    fn open(name: Option<&Path>) -> anyhow::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let Some(name) = name else { return Ok(Self::Standard(BufWriter::new(io::stdout()))) };
        if name.exists() {
            return Err(anyhow!("the file {} is there already; name another", name.display()));
        }
        let mut partial = name.to_owned().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .with_context(|| format!("the file {} cannot be made", partial.display()))?;
        Ok(Self::File { writer: BufWriter::new(file), partial, name: name.to_owned() })
    }

    /// Writes a line. `false` when the reader has gone away (`| head`), which is no error.
    fn write(&mut self, line: &str) -> anyhow::Result<bool> {
        let written = match self {
            Self::Standard(writer) => writer.write_all(line.as_bytes()),
            Self::File { writer, .. } => writer.write_all(line.as_bytes()),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("the export could not be written"),
            Ok(()) => Ok(true),
        }
    }

    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Standard(mut writer) => match writer.flush() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(error).context("the export could not be written")
                }
                _ => Ok(()),
            },
            Self::File { writer, partial, name } => {
                let file = writer.into_inner().context("the export could not be written")?;
                file.sync_all().context("the export could not be written")?;
                std::fs::rename(&partial, &name).with_context(|| format!("the file {} cannot be made", name.display()))
            }
        }
    }
}
