//! The simulator's command line: many seeds, one seed again with its trace, or planted bugs.
#![allow(clippy::print_stdout, reason = "a command line's output")]

use std::process::ExitCode;

use quorate_simulation::{Failure, Options, Planted, Report, run};

const USAGE: &str = "usage: simulation --seeds N [--first S] [--bug NAME]
       simulation --replay S [--trace] [--bug NAME]
       simulation --planted        every planted bug within its budget (feature planted-bugs)";

#[derive(Default)]
struct Arguments {
    seeds: u64,
    first: u64,
    replay: Option<u64>,
    planted: bool,
    help: bool,
    options: Options,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            println!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if arguments.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let good = if arguments.planted {
        find_planted()
    } else if let Some(seed) = arguments.replay {
        replay(seed, &arguments.options)
    } else {
        many(&arguments)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const HELP: [&str; 2] = ["--help", "-h"];

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { first: 1, ..Arguments::default() };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            help if HELP.contains(&help) => arguments.help = true,
            "--seeds" => arguments.seeds = number(&value()?)?,
            "--first" => arguments.first = number(&value()?)?,
            "--replay" => arguments.replay = Some(number(&value()?)?),
            "--trace" => arguments.options.trace = true,
            "--planted" => arguments.planted = true,
            "--bug" => {
                let name = value()?;
                let bug = Planted::by_name(&name).ok_or(format!("no planted bug {name}"))?;
                arguments.options.bug = Some(bug);
            }
            _ => return Err(format!("what is {word}?")),
        }
    }
    if arguments.help {
        return Ok(arguments);
    }
    if arguments.seeds == 0 && arguments.replay.is_none() && !arguments.planted {
        return Err("nothing to do".into());
    }
    Ok(arguments)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn many(arguments: &Arguments) -> bool {
    let seeds = arguments.first..arguments.first.saturating_add(arguments.seeds);
    let outcome = search(seeds, &arguments.options);
    println!("{}", outcome.report);
    for failure in outcome.failures.iter().take(SHOWN_MAX) {
        println!(
            "FAILED {failure}\n       again with its trace: --replay {} --trace",
            failure.seed
        );
    }
    let shortfalls = outcome.report.shortfalls();
    for shortfall in &shortfalls {
        println!("TOO FEW {shortfall}");
    }
    let good = outcome.failures.is_empty() && shortfalls.is_empty();
    println!("{} seeds, {} failed", outcome.report.seeds, outcome.failures.len());
    good
}

/// How many failures are told one by one.
const SHOWN_MAX: usize = 20;

struct Outcome {
    report: Report,
    failures: Vec<Failure>,
}

/// Runs the seeds on all cores: each is a world of its own.
fn search(seeds: std::ops::Range<u64>, options: &Options) -> Outcome {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let work = || {
        let mut outcome = Outcome { report: Report::default(), failures: Vec::new() };
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end {
                return outcome;
            }
            let (report, failure) = run(seed, options);
            outcome.report.add(&report);
            outcome.failures.extend(failure);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = Outcome { report: Report::default(), failures: Vec::new() };
        for worker in workers {
            let part = worker.join().expect("a world's panics are caught");
            sum.report.add(&part.report);
            sum.failures.extend(part.failures);
        }
        sum.failures.sort_by_key(|failure| failure.seed);
        sum
    })
}

fn replay(seed: u64, options: &Options) -> bool {
    let (report, failure) = run(seed, options);
    match failure {
        Some(failure) => {
            failure.trace.iter().for_each(|line| println!("{line}"));
            println!("{report}\nFAILED {failure}");
            false
        }
        None => {
            println!("{report}\nseed {seed} held");
            true
        }
    }
}

fn find_planted() -> bool {
    let mut missed = 0;
    // Many of them are found by a panic of the code under test; its text is in the failure.
    std::panic::set_hook(Box::new(|_| {}));
    for (bug, budget) in Planted::ALL {
        let options = Options { bug: Some(bug), ..Options::default() };
        let found = (1..=budget).find_map(|seed| run(seed, &options).1);
        match found {
            Some(failure) => println!("found    {:26} {failure}", bug.name()),
            None => {
                missed += 1;
                println!("MISSED   {:26} in {budget} seeds", bug.name());
            }
        }
    }
    missed == 0
}
