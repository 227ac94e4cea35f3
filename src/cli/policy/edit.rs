//! `exocom policy edit`: an editor on a copy, and only a sound policy goes back, to its files or to a running broker.
//!
//! Asks before it replaces anything, and has no way to save a policy that is refused.

use std::env;
use std::fmt;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::Args;

use super::diff::text;
use super::live::{Live, failed, in_force, named};
use super::test::tell_failures;
use super::{REFUSED, Streams};
use crate::cli::admin::AdminArgs;
use crate::console::answer::Answer;
use crate::console::policy::PolicyAnswer;
use crate::policy::{Policy, Source};
use crate::policy_files::{load_expectations, load_files, load_sources, replace, replace_all};
use crate::review::{diff, judge};

/// Edit a policy, with no way to save a broken one
#[derive(Debug, Args)]
#[command(
    long_about = "Edit a policy, with no way to save a broken one.\n\n\
        Opens your editor, $VISUAL or $EDITOR, on a copy: of a file, of all *.toml files of a folder, or, without PATH, of \
        the policy that a running broker has in force. When you leave it, the policy is checked, with its expectations; \
        mistakes are shown, and you may edit again. Then it tells who gains and who loses what, and asks. Only then the \
        files are replaced, each whole, with its mode and owner; if somebody has changed them meanwhile, none is. To a \
        running broker it is as `exocom policy apply`.",
    after_long_help = "Examples:\n  \
        exocom policy edit policies/todo.toml\n  \
        exocom policy edit policies/                                 all files of a policy of several\n  \
        exocom policy edit policies/web.toml --with policies/        one of them\n  \
        exocom policy edit --admin /run/exocom/admin.sock --why \"web may purge\"\n\n\
        Exit codes:\n  \
        0  the files were replaced or the policy is in force, or nothing was changed\n  \
        1  nothing was saved; what you wrote is kept where it says\n  \
        2  a file is missing or unreadable, the editor does not run, or no broker answers"
)]
pub struct EditArgs {
    /// The file to edit, or the folder; otherwise the policy of a running broker
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// The other files or folders of the same policy
    #[arg(long, value_name = "PATH", requires = "path")]
    with: Vec<PathBuf>,
    /// Of a running broker: why, for the log
    #[arg(long, visible_alias = "reason", value_name = "TEXT", conflicts_with = "path")]
    why: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Does it.
pub(super) fn run(args: &EditArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    match edit(args, &mut io::stdin().lock(), streams) {
        Ok(code) => Ok(code),
        // What is said of a file has its name as context; without, it is what this command prints that went wrong.
        Err(error) if error.chain().count() > 1 => failed(&error, false, streams),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) => Err(error),
            Err(error) => failed(&error, false, streams),
        },
    }
}

/// What the person at the keyboard wants.
enum Wish {
    Replace,
    EditAgain,
    Stop,
}

fn edit(args: &EditArgs, answers: &mut dyn BufRead, streams: &mut Streams<'_>) -> anyhow::Result<ExitCode> {
    let session = Session::begin(args)?;
    let what = session.origin.to_string();
    loop {
        session.run_editor()?;
        let edited = session.read_copies()?;
        if edited == session.originals {
            writeln!(streams.out, "{what}: nothing was changed")?;
            return Ok(ExitCode::SUCCESS);
        }
        let wish = if session.judge(&edited, args, streams)? {
            let question = format!("replace {what}? [y]es, [e]dit again, [N]o: ");
            match ask(&question, answers, streams)?.as_str() {
                "y" | "yes" => Wish::Replace,
                "e" | "edit" => Wish::EditAgain,
                _ => Wish::Stop,
            }
        } else {
            match ask("edit again? [Y]es, [n]o: ", answers, streams)?.as_str() {
                "y" | "yes" | "\n" => Wish::EditAgain,
                _ => Wish::Stop,
            }
        };
        match wish {
            Wish::EditAgain => {}
            Wish::Replace => {
                return match session.replace(&edited, args) {
                    Ok(done) => {
                        writeln!(streams.out, "{done}")?;
                        Ok(ExitCode::SUCCESS)
                    }
                    Err(why) => session.stop(&why, streams),
                };
            }
            Wish::Stop => return session.stop(&format!("{what}: nothing was saved"), streams),
        }
    }
}

/// Where the policy comes from, and goes back to.
enum Origin {
    File(PathBuf),
    Folder(PathBuf),
    Broker(Box<Live>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Folder(path) => path.display().fmt(f),
            Self::Broker(live) => write!(f, "the policy in force, {}", live.version()),
        }
    }
}

/// One edit: the copies, and what the policy was.
struct Session {
    origin: Origin,
    folder: tempfile::TempDir,
    originals: Vec<Source>,
    /// The other files of the policy, which are not edited.
    others: Vec<Source>,
}

impl Session {
    fn begin(args: &EditArgs) -> anyhow::Result<Self> {
        let origin = match &args.path {
            None => Origin::Broker(Box::new(in_force(&args.admin)?)),
            Some(path) if path.is_dir() => Origin::Folder(path.clone()),
            Some(path) => Origin::File(path.clone()),
        };
        let originals = match &origin {
            Origin::Broker(live) => live.sources(),
            Origin::Folder(path) => load_sources(std::slice::from_ref(path))?,
            Origin::File(path) => load_files(std::slice::from_ref(path))?,
        };
        let mut others = load_sources(&args.with)?;
        if args.path.is_some() {
            let canonical = |source: &Source| Path::new(&source.name).canonicalize();
            let edited: Vec<_> = originals.iter().flat_map(canonical).collect();
            others.retain(|other| canonical(other).is_ok_and(|other| !edited.contains(&other)));
        }
        let folder = tempfile::Builder::new()
            .prefix("exocom-edit-")
            .tempdir()
            .context("cannot make a folder for the copy")?;
        let session = Self {
            origin,
            folder,
            originals,
            others,
        };
        for (copy, original) in session.copies().zip(&session.originals) {
            std::fs::write(&copy, &original.text).with_context(|| copy.display().to_string())?;
        }
        Ok(session)
    }

    /// Where the copies of the originals lie.
    fn copies(&self) -> impl Iterator<Item = PathBuf> {
        let name = |source: &Source| PathBuf::from(Path::new(&source.name).file_name().unwrap_or_default());
        self.originals
            .iter()
            .map(move |source| self.folder.path().join(name(source)))
    }

    fn run_editor(&self) -> anyhow::Result<()> {
        let editor = ["VISUAL", "EDITOR"]
            .into_iter()
            .find_map(|name| env::var(name).ok().filter(|editor| !editor.trim().is_empty()));
        let editor = editor.unwrap_or_else(|| "vi".to_owned());
        // By the shell, since an editor may come with arguments; the files are some of them, and not part of the command.
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("{editor} \"$@\""))
            .arg("sh")
            .args(self.copies())
            .status()
            .context("cannot run a shell for the editor")?;
        if !status.success() {
            bail!(
                "the editor `{editor}` failed ({status}); nothing was saved. Set VISUAL or EDITOR to your editor"
            );
        }
        Ok(())
    }

    /// What the editor has left, under the names of the files that it is to replace. Of several files, some may be new,
    /// and some gone.
    fn read_copies(&self) -> anyhow::Result<Vec<Source>> {
        let has_several = self.originals.len() > 1 || matches!(self.origin, Origin::Folder(_));
        let mut edited = if has_several {
            load_sources(&[self.folder.path().to_owned()])?
        } else {
            load_files(&self.copies().collect::<Vec<_>>())?
        };
        for source in &mut edited {
            let name = Path::new(&source.name).file_name().unwrap_or_default();
            let original = self
                .originals
                .iter()
                .find(|original| Path::new(&original.name).file_name() == Some(name));
            source.name = match (original, &self.origin) {
                (Some(original), _) => original.name.clone(),
                (None, Origin::Folder(folder)) => folder.join(name).display().to_string(),
                (None, _) => name.to_string_lossy().into_owned(),
            };
        }
        Ok(edited)
    }

    /// Whether the edited policy may be saved; tells why not, or what it changes.
    fn judge(&self, edited: &[Source], args: &EditArgs, streams: &mut Streams<'_>) -> anyhow::Result<bool> {
        let with =
            |sources: &[Source]| -> Vec<Source> { self.others.iter().chain(sources).cloned().collect() };
        let new = match Policy::compile(&with(edited)) {
            Ok(new) => new,
            Err(errors) => {
                let text = errors.diagnostics().render(streams.err_colour);
                streams.err.write_all(text.as_bytes())?;
                return Ok(false);
            }
        };
        let warnings = new.warnings.render(streams.err_colour);
        streams.err.write_all(warnings.as_bytes())?;
        let paths: Vec<_> = args.path.iter().chain(&args.with).cloned().collect();
        let verdict = judge(&new.policy, &load_expectations(&paths)?);
        tell_failures(&verdict, streams.err)?;
        if verdict.failed > 0 {
            return Ok(false);
        }
        match Policy::compile(&with(&self.originals)) {
            Ok(old) => match diff(&old.policy, &new.policy) {
                Ok(diff) => write!(streams.out, "{}", text(&diff, streams.out_colour))?,
                Err(error) => writeln!(streams.err, "{error}")?,
            },
            Err(_) => writeln!(
                streams.out,
                "there is nothing to compare with: the policy was broken before"
            )?,
        }
        Ok(true)
    }

    /// Puts the edited policy in the place of the old one. What was done, or why it was not.
    fn replace(&self, edited: &[Source], args: &EditArgs) -> Result<String, String> {
        let place = self.origin.to_string();
        let replaced = match (&self.origin, self.originals.as_slice(), edited) {
            (Origin::Broker(live), _, _) => {
                let answer = live.replace(named(edited.to_vec()), args.why.clone(), &args.admin);
                let answer = answer.map_err(|error| format!("{error:#}"))?;
                let text = answer.to_text().trim_end().to_owned();
                return match answer {
                    PolicyAnswer::Applied { .. } => Ok(text),
                    _ => Err(text),
                };
            }
            (Origin::File(path), [original], [edited]) => replace(path, &original.text, &edited.text),
            (Origin::File(path) | Origin::Folder(path), originals, edited) => {
                replace_all(path, originals, edited)
            }
        };
        match replaced {
            Ok(()) => Ok(format!("{place}: replaced")),
            Err(error) => Err(format!("{place}: {error}")),
        }
    }

    /// Ends without saving; what was written is kept.
    fn stop(self, why: &str, streams: &mut Streams<'_>) -> anyhow::Result<ExitCode> {
        let copies: Vec<_> = self.copies().collect();
        let folder = self.folder.keep();
        let kept = match copies.as_slice() {
            [copy] => copy,
            _ => &folder,
        };
        writeln!(streams.err, "{why}; what you wrote is kept in {}", kept.display())?;
        Ok(ExitCode::from(REFUSED))
    }
}

/// The answer in small letters; `\n` for an empty line, nothing at the end of the input.
pub(super) fn ask(
    question: &str,
    answers: &mut dyn BufRead,
    streams: &mut Streams<'_>,
) -> anyhow::Result<String> {
    write!(streams.out, "{question}")?;
    streams.out.flush()?;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let answer = line.trim().to_lowercase();
    Ok(if answer.is_empty() && !line.is_empty() {
        "\n".to_owned()
    } else {
        answer
    })
}
