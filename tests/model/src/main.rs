//! The command: explores the setups, one a thread, and prints what each came to.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_model::{Exploration, SETUPS, Setup, Size, explore};

const HELP: &str = "\
quorate-model [--full] [--limit STEPS] [--threads N] [SETUP...]

Explores every order of events of small clusters within the bounds of the setups: the small ones,
all with --full, or those named. Exits with 0 if every setup was explored completely, met all that
it should meet, and broke no rule.
";

struct Options {
    setups: Vec<&'static Setup>,
    limit: Option<usize>,
    threads: usize,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("quorate-model: {message}");
            return ExitCode::FAILURE;
        }
    };
    if run(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let (mut full, mut limit, mut names) = (false, None, Vec::new());
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().ok_or_else(|| format!("{arg} wants a number"))?;
            value.parse::<usize>().map_err(|error| format!("{arg} {value}: {error}"))
        };
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--full" => full = true,
            "--limit" => limit = Some(number()?),
            "--threads" => threads = number()?.max(1),
            _ if SETUPS.iter().any(|setup| setup.name == arg) => names.push(arg),
            _ => {
                let known: Vec<_> = SETUPS.iter().map(|setup| setup.name).collect();
                return Err(format!("no setup or option `{arg}`; setups: {}", known.join("; ")));
            }
        }
    }
    let is_chosen = |setup: &&Setup| match names.as_slice() {
        [] => full || setup.size == Size::Small,
        names => names.iter().any(|name| name == setup.name),
    };
    Ok(Some(Options { setups: SETUPS.iter().filter(is_chosen).collect(), limit, threads }))
}

/// Whether all went well.
fn run(options: &Options) -> bool {
    println!("setup             states       steps  depth  seconds  result");
    let next = AtomicUsize::new(0);
    let all_well = Mutex::new(true);
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                while let Some(setup) = options.setups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let exploration = explore(setup, options.limit);
                    let mut all_well = all_well.lock().expect("no thread panics while it prints");
                    *all_well &= report(setup, &exploration);
                }
            });
        }
    });
    all_well.into_inner().expect("no thread panics while it prints")
}

fn report(setup: &Setup, exploration: &Exploration) -> bool {
    let Exploration { states, steps, depth, time, found, missed, events, is_complete } =
        exploration;
    let is_well = found.is_empty() && missed.is_empty() && *is_complete;
    let result = match (is_well, found.is_empty()) {
        (true, _) => "all hold",
        (false, false) => "BROKEN",
        (false, true) => "INCOMPLETE",
    };
    let seconds = time.as_secs_f64();
    println!("{:<13} {states:>10}  {steps:>10}  {depth:>5}  {seconds:>7.1}  {result}", setup.name);
    let seen = events.iter().filter(|(_, count)| *count > 0);
    let seen: Vec<_> = seen.map(|(event, count)| format!("{event:?} {count}")).collect();
    println!("    {}", seen.join(", "));
    if !missed.is_empty() {
        println!("    not met: {missed:?}");
    }
    for broken in found {
        println!("    broken: {}\n{}", broken.wrong.rule(), broken.path);
    }
    is_well
}
