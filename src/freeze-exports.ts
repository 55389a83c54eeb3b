/** A webpack loader: the module freezes its exports itself, at the top only. `__webpack_exports__` is webpack's name for them. */
export default function freezeExports(source: string): string {
  return `${source}\nObject.freeze(__webpack_exports__);\n`;
}
