import { Command, CommanderError, Option } from 'commander';
import { gates } from '../contract/names.ts';
import { cordonVersion } from '../paths.ts';
import { audit } from './audit.ts';
import { Cli, type Answer, type Io } from './cli.ts';
import { amend, decide, type AmendOptions, type DecideOptions } from './decide.ts';
import { doctor } from './doctor.ts';
import { CliError, exitCodes } from './exit.ts';
import { list } from './list.ts';
import { aboutStep, close, extend, note, type MessageOptions } from './message.ts';
import { plan } from './plan.ts';
import { chat, demo, hasPart, hostWorker, worker } from './run.ts';
import { show } from './show.ts';
import { start, type StartOptions } from './start.ts';
import { verify } from './verify.ts';

const examples = `
An incident now:
  cordon start https://peer.example --alert peer_replay_burst --reported-by YOU
  cordon show PEER                       what it does, what it waits for
  cordon plan PEER                       what would be undone, with its digest
  cordon approve PEER --gate retract --digest sha256:… --by YOU
  cordon doctor                          when nothing moves

PEER: workflow id, the peer's node_id, or a part that only one incident has.

`;
const exits = `
Exit codes:
${Object.values(exitCodes)
  .map(({ code, meaning }) => `  ${code}  ${meaning}`)
  .join('\n')}
`;
const notYet = hasPart('demo') ? [] : ['demo'];
const many = (value: string, sofar: string[] | undefined) => [...(sofar ?? []), value];
const by = () => new Option('--by <name>', 'who says so (a person; needed)');

type Run = (options: { json?: boolean }, command: (cli: Cli) => Promise<Answer>) => Promise<void>;

/** Runs the program on these arguments (without node and script) and returns the exit code. */
export async function runCli(args: readonly string[], io: Io): Promise<number> {
  let code: number = exitCodes.ok.code;
  const run: Run = async (options, command) => {
    code = await new Cli(io, options.json === true).run(command);
  };
  const [name] = args;
  if (name !== undefined && notYet.includes(name)) {
    const refused = new CliError('usage', `${name} is not in this version`, 'cordon --help');
    return await new Cli(io, args.includes('--json')).run(() => Promise.reject(refused));
  }
  const program = build(run, io);
  try {
    await program.parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? exitCodes.ok.code : exitCodes.usage.code;
  }
  return code;
}

function build(run: Run, io: Io): Command {
  const program = new Command('cordon')
    .description('Contains a compromised federation peer of a Stigmem node, and proves what was done.')
    .version(cordonVersion(), '--version', 'which cordon this is')
    .addHelpText('before', examples.trimStart())
    .addHelpText('after', exits)
    .exitOverride()
    .helpCommand(false)
    .configureHelp({
      subcommandTerm: (sub) =>
        [sub.name(), ...sub.registeredArguments.map((a) => (a.required ? `<${a.name()}>` : `[${a.name()}]`))].join(' '),
    })
    .configureOutput({
      writeOut: (text) => io.out(text.trimEnd()),
      writeErr: (text) => io.err(text.trimEnd()),
      getOutHelpWidth: () => Math.min(io.columns, 100),
    })
    .showHelpAfterError('next: cordon --help');
  const command = (usage: string, description: string) =>
    program.command(usage).description(description).option('--json', 'answer as JSON');
  watching(program, command, run);
  deciding(program, command, run);
  unsticking(program, command, run);
  return program;
}

type Make = (usage: string, description: string) => Command;

function watching(program: Command, command: Make, run: Run): void {
  program.commandsGroup('Start and watch:');
  command('start <peer>', 'open the incident of a peer, or join the open one')
    .option('--alert <name[@time][=detail]>', 'an alert that says so; repeat for more', many)
    .option('--reported-by <name>', 'who noticed')
    .option('--reason <text>', 'what is known')
    .option('--first-bad-at <time>', 'since when, ISO 8601, if known')
    .option('--watch <duration>', 'how long to watch the peer afterwards: 24h, 7d')
    .option('--drill', 'a rehearsal: own id, never joins a live incident')
    .option('--policy <file>', 'YAML or JSON that tightens the policy')
    .option('--id <workflow-id>', 'another workflow id than the peer gives')
    .action((peer: string, o: StartOptions & { json?: boolean }) => run(o, (cli) => start(cli, peer, o)));
  command('list', 'open incidents')
    .option('--all', 'closed ones too')
    .option('--limit <n>', 'at most so many', '50')
    .action((o: { json?: boolean; all?: boolean; limit?: string }) => run(o, (cli) => list(cli, o)));
  command('show <incident>', 'where it is, what it waits for, what is not undone').action((id: string, o: { json?: boolean }) =>
    run(o, (cli) => show(cli, id)),
  );
  command('plan <incident>', 'what a gate is about, item by item')
    .option('--gate <gate>', `${gates.join(', ')} (default: the first that waits)`)
    .option('--limit <n>', 'at most so many items', '40')
    .action((id: string, o: { json?: boolean; gate?: string; limit?: string }) => run(o, (cli) => plan(cli, id, o)));
}

function deciding(program: Command, command: Make, run: Run): void {
  program.commandsGroup('Decide:');
  for (const verb of ['approve', 'reject'] as const) {
    command(`${verb} <incident>`, verb === 'approve' ? 'say yes to exactly one plan' : 'say no; nothing is done')
      .option('--gate <gate>', `${gates.join(', ')} (needed)`)
      .option('--digest <sha256:…>', 'of the plan as you read it; on a terminal asked for if left out')
      .addOption(by())
      .option('--note <text>', 'for the record')
      .option('--fingerprint <sha256:…>', "the peer's new key, from outside this system")
      .action((id: string, o: DecideOptions & { json?: boolean }) => run(o, (cli) => decide(cli, verb, id, o)));
  }
  command('amend <incident>', 'keep facts out of the retract plan')
    .option('--digest <sha256:…>', 'of the plan as you read it (needed)')
    .option('--keep <factId=why>', 'a fact to keep; repeat for more', many)
    .option('--keep-file <file>', 'YAML or JSON list of {factId, justification}')
    .addOption(by())
    .action((id: string, o: AmendOptions & { json?: boolean }) => run(o, (cli) => amend(cli, id, o)));
  command('extend <incident>', 'watch a peer longer that is back')
    .option('--for <duration>', 'how much longer, 24h or 7d (needed)')
    .option('--note <text>', 'for the record')
    .addOption(by())
    .action((id: string, o: MessageOptions & { json?: boolean }) => run(o, (cli) => extend(cli, id, o)));
  command('close <incident>', 'ask for an end; opens a gate')
    .option('--outcome <outcome>', 'expelled or dismissed (needed)')
    .option('--reason <text>', 'why (needed)')
    .addOption(by())
    .action((id: string, o: MessageOptions & { json?: boolean }) => run(o, (cli) => close(cli, id, o)));
}

function unsticking(program: Command, command: Make, run: Run): void {
  program.commandsGroup('When it is stuck:');
  const about = { retry: 'try a stuck step again', done: 'a step was done by hand; it is read back', skip: 'leave a step out' };
  for (const verb of ['retry', 'done', 'skip'] as const) {
    command(`${verb} <incident> <step>`, about[verb])
      .addOption(by())
      .option('--note <text>', verb === 'retry' ? 'for the record' : 'what was done, or why (needed)')
      .action((id: string, step: string, o: MessageOptions & { json?: boolean }) => run(o, (cli) => aboutStep(cli, verb, id, step, o)));
  }
  command('note <incident> <text>', 'put something on record')
    .addOption(by())
    .action((id: string, text: string, o: MessageOptions & { json?: boolean }) => run(o, (cli) => note(cli, id, text, o)));
  command('doctor', 'check everything an incident needs').action((o: { json?: boolean }) => run(o, doctor));
  program.commandsGroup('Prove:');
  command('verify <folder>', 'check an evidence folder, offline')
    .option('--head <sha256:…>', 'a head from elsewhere that must be in it; repeat for more', many)
    .action((folder: string, o: { json?: boolean; head?: string[] }) => run(o, (cli) => verify(cli, folder, o)));
  command('audit <incident-or-history>', 'the report: who decided what, what was changed, what is left')
    .option('--out <folder>', 'where to write it', '.')
    .action((of: string, o: { json?: boolean; out?: string }) => run(o, (cli) => audit(cli, of, o)));
  program.commandsGroup('Run:');
  command('worker', 'run incidents; stops on SIGTERM').action((o: { json?: boolean }) => run(o, worker));
  command('host-worker', "do what HTTP can't, on the node's machine; stops on SIGTERM").action((o: { json?: boolean }) =>
    run(o, hostWorker),
  );
  command('chat', 'cards and decisions in Slack; stops on SIGTERM').action((o: { json?: boolean }) => run(o, chat));
  if (hasPart('demo')) {
    command('demo [args...]', 'the whole runbook on this machine, on loopback')
      .allowUnknownOption()
      .action((args: string[], o: { json?: boolean }) => run(o, () => demo(args)));
  }
}
