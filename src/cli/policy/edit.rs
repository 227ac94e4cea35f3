//! `exocom policy edit`: an editor on a copy, and only a sound policy goes back.
//!
//! Asks before it replaces the file, and has no way to save a policy that is refused.

use std::env;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::diff::text;
use super::test::tell_failures;
use super::{REFUSED, Streams, unusable};
use crate::policy::{Policy, Source};
use crate::policy_files::{load_expectations, load_files, load_sources, replace};
use crate::review::{diff, judge};

/// Edit a policy, with no way to save a broken one
#[derive(Debug, Args)]
#[command(
    long_about = "Edit a policy, with no way to save a broken one.\n\n\
        Opens your editor, $VISUAL or $EDITOR, on a copy. When you leave it, the policy is checked, with its \
        expectations; mistakes are shown, and you may edit again. Then it tells who gains and who loses what, and asks. \
        Only then the file is replaced, whole, with its mode and owner; if somebody has changed it meanwhile, it is not.",
    after_long_help = "Examples:\n  \
        exocom policy edit policies/todo.toml\n  \
        exocom policy edit policies/web.toml --with policies/        one file of a policy of several\n\n\
        Exit codes:\n  \
        0  the file was replaced, or nothing was changed\n  \
        1  nothing was saved; what you wrote is kept where it says\n  \
        2  the file is missing or unreadable, or the editor does not run"
)]
pub struct EditArgs {
    /// The file to edit
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The other files or folders of the same policy
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
}

/// Does it.
pub(super) fn run(args: &EditArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    match edit(args, &mut io::stdin().lock(), streams) {
        Ok(code) => Ok(code),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) => Err(error),
            Err(error) => unusable(&error, false, streams),
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
    loop {
        session.run_editor()?;
        let edited = session.read_copy()?;
        if edited.text == session.original.text {
            writeln!(streams.out, "{}: nothing was changed", args.file.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        let wish = if session.judge(&edited, args, streams)? {
            let question = format!("replace {}? [y]es, [e]dit again, [N]o: ", args.file.display());
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
                if let Err(error) = replace(&args.file, &session.original.text, &edited.text) {
                    return session.stop(&format!("{}: {error}", args.file.display()), streams);
                }
                writeln!(streams.out, "{}: replaced", args.file.display())?;
                return Ok(ExitCode::SUCCESS);
            }
            Wish::Stop => {
                return session.stop(&format!("{}: nothing was saved", args.file.display()), streams);
            }
        }
    }
}

/// One edit: the copy, and what the policy was.
struct Session {
    folder: tempfile::TempDir,
    copy: PathBuf,
    original: Source,
    /// The other files of the policy.
    others: Vec<Source>,
}

impl Session {
    fn begin(args: &EditArgs) -> anyhow::Result<Self> {
        let canonical = |path: &Path| path.canonicalize().with_context(|| format!("{}", path.display()));
        let file = canonical(&args.file)?;
        ensure!(
            file.is_file(),
            "{}: not a file; name the file of the policy that you want to edit, and its folder by --with",
            args.file.display()
        );
        let original = load_files(std::slice::from_ref(&args.file))?;
        let original = original.into_iter().next().context("one file was read")?;
        let mut others = Vec::new();
        for source in load_sources(&args.with)? {
            if canonical(Path::new(&source.name))? != file {
                others.push(source);
            }
        }
        let folder = tempfile::Builder::new().prefix("exocom-edit-").tempdir()?;
        let copy = folder.path().join(file.file_name().context("a file has a name")?);
        std::fs::write(&copy, &original.text)?;
        Ok(Self {
            folder,
            copy,
            original,
            others,
        })
    }

    fn run_editor(&self) -> anyhow::Result<()> {
        let editor = ["VISUAL", "EDITOR"]
            .into_iter()
            .find_map(|name| env::var(name).ok().filter(|editor| !editor.trim().is_empty()));
        let editor = editor.unwrap_or_else(|| "vi".to_owned());
        // By the shell, since an editor may come with arguments; the file is one of them, and not part of the command.
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("{editor} \"$1\""))
            .arg("sh")
            .arg(&self.copy)
            .status()
            .context("cannot run a shell for the editor")?;
        if !status.success() {
            bail!(
                "the editor `{editor}` failed ({status}); nothing was saved. Set VISUAL or EDITOR to your editor"
            );
        }
        Ok(())
    }

    /// What the editor has left, under the name of the file that it is to replace.
    fn read_copy(&self) -> anyhow::Result<Source> {
        let copy = load_files(std::slice::from_ref(&self.copy))?;
        let copy = copy.into_iter().next().context("one file was read")?;
        Ok(Source {
            name: self.original.name.clone(),
            text: copy.text,
        })
    }

    /// Whether the edited policy may be saved; tells why not, or what it changes.
    fn judge(&self, edited: &Source, args: &EditArgs, streams: &mut Streams<'_>) -> anyhow::Result<bool> {
        let with = |source: &Source| -> Vec<Source> { self.others.iter().chain([source]).cloned().collect() };
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
        let mut paths = vec![args.file.clone()];
        paths.extend(args.with.iter().cloned());
        let verdict = judge(&new.policy, &load_expectations(&paths)?);
        tell_failures(&verdict, streams.err)?;
        if verdict.failed > 0 {
            return Ok(false);
        }
        match Policy::compile(&with(&self.original)) {
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

    /// Ends without saving; what was written is kept.
    fn stop(self, why: &str, streams: &mut Streams<'_>) -> anyhow::Result<ExitCode> {
        let folder = self.folder.keep();
        let copy = self
            .copy
            .file_name()
            .map_or(folder.clone(), |name| folder.join(name));
        writeln!(streams.err, "{why}; what you wrote is kept in {}", copy.display())?;
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
