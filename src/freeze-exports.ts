/** A webpack loader: the module freezes its exports itself, at the top only. `__webpack_exports__` is webpack's name for them. */
// oxlint-disable-next-line import/no-default-export -- a loader is its module's default export
export default function freezeExports(source: string): string {
  return `${source}\nObject.freeze(__webpack_exports__);\n`;
}
