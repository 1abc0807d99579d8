-- The code of an executed notebook, folded; what is wide scrolls in a box of its own.
local function folded(block)
  return { pandoc.RawBlock("html", '<details class="code"><summary>Code</summary>'), block,
           pandoc.RawBlock("html", "</details>") }
end

function Div(cell)
  if cell.classes:includes("cell") and cell.classes:includes("code") then
    return cell:walk({ CodeBlock = function(block)
      if block.classes:includes("python") then return folded(block) end
    end })
  end
end
