// One change of the host worker's, in a process of its own that can be killed: argv is a JSON object.
// {kind, where, incident, ids}: suppresses these facts. Prints `ready` before, and what was made after.
const { kind, where, incident, ids } = JSON.parse(process.argv[2]);
const built = (name) => import(new URL(`../../dist/src/host/${name}.js`, import.meta.url));
const { suppressFacts } = await built('suppress');
const { openSqlite } = await built('sqlite');
const { openPostgres } = await built('postgres');
const database = kind === 'sqlite' ? openSqlite(where) : openPostgres({ dsn: where });
await database.read((session) => session.run('SELECT 1'));
console.log('ready');
const { made } = await suppressFacts(
  database,
  { key: `run-1:retract:1:${incident}`, incident, step: 'undoFacts', operation: 'suppressFacts' },
  ids,
);
console.log(made ? 'made' : 'was made');
await database.close();
