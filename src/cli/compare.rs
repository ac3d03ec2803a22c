//! `afterimage compare`: whether a standby has the same pages as its primary.

use super::getopt::{OptionSpec, Takes};
use super::pages::Pages;
use super::tool::{Tool, as_ours};
use crate::replication::client::{Client, ClientError};
use crate::replication::compare::{self, CompareError, Outcome, Watch};
use crate::replication::conninfo::ConnInfo;

const OPTIONS: &[OptionSpec] = &[
    ('\0', "primary", Takes::Value, "primary"),
    ('\0', "standby", Takes::Value, "standby"),
    ('P', "progress", Takes::Nothing, "P"),
    ('q', "quiet", Takes::Nothing, "q"),
    ('V', "version", Takes::Nothing, "version"),
    ('?', "help", Takes::Nothing, "help"),
];

const HELP: &str = "\
afterimage compare compares the pages of a running standby with those of its primary, each at the same LSN, hints masked.
Both may be at work meanwhile.

Usage:
  afterimage compare --primary=CONNSTR --standby=CONNSTR [OPTION]...

Options:
      --primary=CONNSTR  connection string of the primary
      --standby=CONNSTR  connection string of the standby
  -P, --progress         show progress (default on a terminal)
  -q, --quiet            print differences only
  -V, --version          output version information, then exit
  -?, --help             show this help, then exit

The roles must be superusers. Each page that differs is a line on standard output; on the standby
SELECT afterimage_repair_page(path, block) fetches it again. Exit status is 0 if all pages are the same, 1 if some are not, 2 if the
comparison could not be made.
";

impl Watch for Pages {
    fn todo(&mut self, pages: u64) {
        Self::todo(self, pages);
    }

    fn done(&mut self, pages: u64) {
        Self::done(self, pages);
    }

    fn found(&mut self, what: &str) {
        Self::found(self, what);
    }
}

async fn connect(side: &'static str, text: &str) -> Result<Client, CompareError> {
    let failed = |source| CompareError::Client { side, source };
    let info = ConnInfo::parse(text).map_err(|e| failed(ClientError::from(e)))?;
    Client::connect(&info, false, "afterimage compare").await.map_err(failed)
}

async fn compare(primary: &str, standby: &str, pages: &mut Pages) -> Result<Outcome, CompareError> {
    let mut primary = connect("primary", primary).await?;
    let mut standby = connect("standby", standby).await?;
    compare::run(&mut primary, &mut standby, pages).await
}

/// Runs the command. Returns the exit code.
pub(super) fn run(args: &[String]) -> u8 {
    let name = "afterimage compare";
    let tool = Tool { name, options: OPTIONS, help: HELP, version: as_ours(name), failure: 2 };
    let parsed = match tool.parse(args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let (Some(primary), Some(standby)) = (parsed.value("primary"), parsed.value("standby")) else {
        return tool.advise("error: both --primary and --standby must be given");
    };
    if let Some(extra) = parsed.positional.first() {
        return tool.advise(&format!("error: too many command-line arguments (first is \"{extra}\")"));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return tool.fail(format_args!("could not start: {e}")),
    };
    let mut pages = Pages::new(&parsed);
    let result = runtime.block_on(compare(primary, standby, &mut pages));
    pages.finish();
    match result {
        Ok(outcome) => {
            if !parsed.has("q") {
                let verdict = match outcome.different {
                    0 => "the same on both".to_owned(),
                    n => format!("{n} of them differ"),
                };
                println!("{} files with {} pages compared: {verdict}", outcome.files, outcome.pages);
                if outcome.unsettled > 0 {
                    println!("{} pages changed too fast to be compared", outcome.unsettled);
                }
            }
            u8::from(outcome.different > 0)
        }
        Err(error) => tool.fail(error),
    }
}
