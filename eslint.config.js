// The scripts of the HTML report are joined into one function, in the order of report.py: what one file declares at its
// top level, the others may use.
import { readFileSync, readdirSync } from 'node:fs';

import js from '@eslint/js';
import globals from 'globals';

const FOLDER = 'mmkd_ext/visualization/html/page';
const DECLARATION = /^(?:async )?(const|let|function|class) (?:(\w+)|[{[]([^}\]]*)[}\]])/gm;

const shared = {};
for (const file of readdirSync(FOLDER).filter((name) => name.endsWith('.js'))) {
  for (const [, kind, name, pattern] of readFileSync(`${FOLDER}/${file}`, 'utf8').matchAll(DECLARATION)) {
    const names = name ? [name] : pattern.split(',').map((part) => part.split(':').pop().split('=')[0].trim());
    for (const found of names) shared[found] = kind === 'let' ? 'writable' : 'readonly';
  }
}

export default [
  {
    files: [`${FOLDER}/*.js`],
    ...js.configs.recommended,
    languageOptions: { ecmaVersion: 2022, sourceType: 'script', globals: { ...globals.browser, ...shared } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      ...js.configs.recommended.rules,
      'no-redeclare': ['error', { builtinGlobals: false }],
      'no-unused-vars': ['error', { vars: 'local' }],
      eqeqeq: ['error', 'smart'],
      'no-shadow': 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      'no-eval': 'error',
      'no-implied-eval': 'error',
    },
  },
];
