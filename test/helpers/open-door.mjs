// Opens a door in a process of its own that can be killed, and holds it: argv is a JSON object {kind, where, key, ids, ms}.
const { kind, where, key, ids, ms } = JSON.parse(process.argv[2]);
const built = (name) => import(new URL(`../../dist/src/host/${name}.js`, import.meta.url));
const { openDoor } = await built('door');
const { openSqlite } = await built('sqlite');
const { openPostgres } = await built('postgres');
const database = kind === 'sqlite' ? openSqlite(where) : openPostgres({ dsn: where });
const { made } = await openDoor(database, { key, incident: 'killed', step: 'testPull', operation: 'openDoor' }, { ids, ms, maxFacts: 50 });
console.log(made ? 'opened' : 'was open');
setInterval(() => undefined, 1_000);
